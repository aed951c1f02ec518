"""Frames of the stated length are decoded; a wrong or missing length is refused before decoding."""

import tracemalloc

import numpy as np
import pytest

from stores.errors import IntegrityError
from stores.shards.zstd_frames import content_bytes, decode_frame, encode_frame


def bomb(length):
    """A frame whose header states a false length: magic, one segment, the length, a block."""
    return b"\x28\xb5\x2f\xfd" + bytes([0b11100000]) + length.to_bytes(8, "little") + b"\x01\0\0"


def without_length(frame):
    """The frame with a window descriptor in place of its length."""
    size_bytes = (1, 2, 4, 8)[frame[4] >> 6]
    return frame[:4] + bytes([frame[4] & 0b00011111, 0x58]) + frame[5 + size_bytes :]


@pytest.mark.parametrize("length", [1, 255, 256, 300, 65791, 65792, 100_000, 1 << 21])
def test_frames_state_their_length(length):
    data = (np.arange(length) % 7).astype(np.uint8)
    frame = encode_frame(data)
    assert content_bytes(frame) == length
    out = np.empty(length, np.uint8)
    decode_frame(memoryview(frame), out, "it")
    np.testing.assert_array_equal(out, data)
    for wrong in (length - 1, length + 1):
        with pytest.raises(IntegrityError, match="states a length"):
            decode_frame(frame, np.empty(wrong, np.uint8), "it")


@pytest.mark.parametrize(
    "make",
    [
        lambda frame: b"",
        lambda frame: frame[:5],
        lambda frame: frame[: len(frame) // 2],
        lambda frame: b"\x50\x2a\x4d\x18" + frame[4:],  # a skippable frame
        lambda frame: bomb(1 << 60),
        lambda frame: bomb(70_000),
        lambda frame: without_length(frame),
        lambda frame: frame + frame,
        lambda frame: frame[:20] + b"\xff" * 20 + frame[40:],
    ],
)
def test_frames_of_a_false_length(make):
    frame = encode_frame(np.random.default_rng(0).integers(0, 9, 70_000).astype(np.uint8))
    tracemalloc.start()
    with pytest.raises(IntegrityError):
        decode_frame(make(frame), np.empty(70_000, np.uint8), "it")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
