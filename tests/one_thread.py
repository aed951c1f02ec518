"""One thread for torch, as a fixture of every test of a module or folder that imports it."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Sums on a CPU depend on the number of threads, so that equal runs need the same; and on busy cores two
    that wait for each other over tiny maps take five times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
