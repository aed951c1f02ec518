"""A quick extraction of small made data."""

import shlex
from pathlib import Path

import pytest

from tests.extract.datasets.made_ade20k import write_folder
from tests.pipelines.extraction.verb import TRAINING, VALIDATION


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), training=TRAINING, validation=VALIDATION)


@pytest.fixture
def words(data: Path, tmp_path: Path) -> list[str]:
    """A quick extraction of the training split, every flag over its default."""
    return shlex.split(
        f"--dataset ade20k --data {data} --model swinv2-nano --weights random:0 --crop-size 64"
        f" --stores {tmp_path / 'features'} --device cpu --workers 2 --levels p4,p5"
    )
