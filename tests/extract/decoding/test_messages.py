"""Messages to and from decoders: in shared memory and in pipes, and nothing left of either."""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from extract.decoding import decoder_pool, messages
from extract.decoding.decoder_pool import DecoderPool
from extract.decoding.messages import receive, send, shared_memory
from extract.views.view import View

HW = (48, 64)
VIEW = View(resized_hw=HW, valid_hw=HW, padded_hw=HW)


def exchanged(blobs: Sequence[bytes], memory: int | None) -> tuple[dict[str, object], list[bytes]]:
    read_end, write_end = os.pipe()
    with open(read_end, "rb", buffering=0) as reader, open(write_end, "wb", buffering=0) as writer:
        thread = threading.Thread(target=send, args=(writer, {"do": "it"}, blobs, memory))
        thread.start()
        message = receive(reader, memory)
        thread.join()
    assert message is not None
    return message[0], [bytes(blob) for blob in message[1]]


@given(st.lists(st.binary(max_size=2000), max_size=4), st.integers(1, 90), st.booleans())
def test_a_message_arrives_as_it_was_sent(blobs: list[bytes], repeats: int, is_shared: bool) -> None:
    sent = [blob * repeats for blob in blobs]
    memory = shared_memory() if is_shared else None
    try:
        for blobs_of_turn in (sent, sent[:1], sent[::-1]):  # what one leaves is not part of the next
            assert exchanged(blobs_of_turn, memory) == ({"do": "it"}, blobs_of_turn)
    finally:
        if memory is not None:
            os.close(memory)


def test_memory_of_a_large_message_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_KEPT_BYTES", 1 << 20)
    memory = shared_memory()
    assert memory is not None
    for length, kept in ((1 << 20, 1 << 20), ((1 << 20) + 1, 0), (7, 7)):
        exchanged([bytes(length)], memory)
        assert os.fstat(memory).st_size == kept
    os.close(memory)


def test_what_the_memory_has_no_room_for_goes_through_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    memory, blobs = shared_memory(), [bytes(range(256)) * 900, b"", b"x"]
    monkeypatch.setattr(os, "pwrite", full)
    assert exchanged(blobs, memory)[1] == blobs
    assert memory is not None
    os.close(memory)


def photograph() -> bytes:
    file = io.BytesIO()
    rgb = np.random.default_rng(0).integers(0, 256, (*HW, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()


def test_views_are_equal_without_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    (shared,) = DecoderPool().render_image(photograph(), HW, [VIEW])
    monkeypatch.setattr(decoder_pool, "shared_memory", lambda: None)
    (piped,) = DecoderPool().render_image(photograph(), HW, [VIEW])
    assert np.array_equal(shared, piped) and shared.flags.writeable


def names_in_memory() -> list[str]:
    """Of files in /dev/shm that are ours."""
    return [name for name in os.listdir("/dev/shm") if "permafrost" in name]


def memories(pid: int | str = "self") -> int:
    """Shared memories that a process holds."""
    found = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += "memfd:permafrost" in os.readlink(fd)
        except FileNotFoundError:  # closed meanwhile
            continue
    return found


def test_a_killed_decoder_leaves_no_memory() -> None:
    before = memories()
    pool = DecoderPool(processes=1)
    pool.render_image(photograph(), HW, [VIEW])
    (decoder,) = pool._idle
    assert memories() == before + 1 and memories(decoder.process.pid) == 1
    decoder.process.kill()
    decoder.process.wait()
    with pytest.raises(Exception, match="no memory left"):  # by SIGKILL, as the kernel does then
        pool.render_image(photograph(), HW, [VIEW])
    assert memories() == before and names_in_memory() == []


def test_a_killed_extraction_leaves_neither_decoders_nor_memory() -> None:
    code = (
        "import sys, time; from tests.extract.decoding.test_messages import *; pool = DecoderPool(); "
        "pool.render_image(photograph(), HW, [VIEW]); print(pool._idle[0].process.pid, flush=True); "
        "time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with closing(parent.stdout):
        decoder = os.pidfd_open(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        ended, _, _ = select.select([decoder], [], [], 60)
    os.close(decoder)
    assert ended, "the decoder outlived its extraction"
    assert names_in_memory() == []
