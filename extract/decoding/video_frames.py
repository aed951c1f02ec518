"""Frames of a video by number, from decord or PyAV: the same numbers, and the same pixels.

Frame n is the n-th in the order of showing. Decoders begin at the last closed key frame before it, so that a
frame's pixels follow from its group of pictures alone, whichever other frames are asked for. decord begins at
any key frame, and miscounts behind open ones; it makes other RGB of more than 8 bits and of odd sides: it is
asked only where all groups are closed, of 8 bits and even sides (`ClipFacts.decoder`).
Nothing is resized by a decoder: FFmpeg's scaler rounds differently from Pillow, which makes views elsewhere.
"""

from __future__ import annotations

import bisect
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.decoding.video_container import (
    ClipFacts,
    decoding,
    is_closed,
    is_timed,
    open_container,
)
from extract.sources.byte_sources import SourceError
from extract.sources.record import DECODER_NAMES
from stores.format.row_table import UNDECODABLE, WRONG_SIZE

Frame = npt.NDArray[np.uint8]
Frames = Iterator[tuple[int, Frame]]

CHUNK_BYTES = 32 << 20  # 32 MiB
"""Decoded frames that decord gives at once; a larger frame comes alone."""


def decord_frames(data: bytes, facts: ClipFacts, wanted: Sequence[int]) -> Frames:
    """Frames by decord; see `read_frames`."""
    import decord  # here: it starts threads, and nothing but the decoding process needs it

    decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(io.BytesIO(data), num_threads=1)
    if len(reader) != facts.frames:
        raise SourceError(WRONG_SIZE, f"decord finds {len(reader)} frames, its container has {facts.frames}")
    height, width = facts.hw
    step = max(1, CHUNK_BYTES // (3 * height * width))
    for start in range(0, len(wanted), step):
        numbers = list(wanted[start : start + step])
        yield from zip(numbers, reader.get_batch(numbers).asnumpy(), strict=True)


def pyav_frames(data: bytes, facts: ClipFacts, wanted: Sequence[int]) -> Frames:
    """Frames by PyAV; see `read_frames`."""
    times, keys = _times(data)
    if times is None:
        yield from _counted(data, facts, wanted)
        return
    if len(times) != facts.frames:
        raise SourceError(WRONG_SIZE, f"PyAV finds {len(times)} frames, its container has {facts.frames}")
    group_of = [bisect.bisect_right(keys, times[number]) for number in wanted]
    for group in sorted(set(group_of)):
        numbers = [number for number, its in zip(wanted, group_of, strict=True) if its == group]
        key = keys[group - 1] if group else None
        yield from _group(data, facts, key, {times[number]: number for number in numbers})


def _times(data: bytes) -> tuple[list[int] | None, list[int]]:
    """When each frame is shown, in order, and each closed key frame; None where packets do not say."""
    with open_container(io.BytesIO(data)) as container:
        if not is_timed(container):
            return None, []
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
        times = sorted(p.pts for p in packets if p.pts is not None)
        if len(times) < len(packets) or len(set(times)) < len(times):
            return None, []
        return times, sorted(p.pts for p in packets if p.is_keyframe and is_closed(stream, bytes(p)))


def _group(data: bytes, facts: ClipFacts, key: int | None, number_at: Mapping[int, int]) -> Frames:
    """Frames behind a key frame, or the first packet, by the times at which they are shown, in order."""
    left = sorted(number_at)
    with open_container(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        if key is not None:
            container.seek(key, stream=stream)
        decoded = container.decode(stream)
        while left:
            frame = next(decoded, None)
            if frame is None or (frame.pts is not None and frame.pts > left[0]):
                raise SourceError(
                    UNDECODABLE, f"frame {number_at[left[0]]} of {facts.frames} cannot be decoded"
                )
            _check_sound(frame)
            if frame.pts == left[0]:
                yield number_at[left.pop(0)], _rgb(frame, facts)


def _counted(data: bytes, facts: ClipFacts, wanted: Sequence[int]) -> Frames:
    """Frames of a video whose packets do not say when they are shown: decoded from the first, and counted."""
    with open_container(io.BytesIO(data)) as container:
        decoded, left = container.decode(container.streams.video[0]), set(wanted)
        for number in range(max(wanted) + 1):
            frame = next(decoded, None)
            if frame is None:
                raise SourceError(UNDECODABLE, f"frame {min(left)} of {facts.frames} cannot be decoded")
            _check_sound(frame)
            if number in left:
                left.remove(number)
                yield number, _rgb(frame, facts)


def _check_sound(frame: Any) -> None:
    if frame.is_corrupt:
        raise SourceError(UNDECODABLE, "a frame is damaged")


def _rgb(frame: Any, facts: ClipFacts) -> Frame:
    rgb: Frame = np.rot90(frame.to_ndarray(format="rgb24"), facts.rotation // 90)
    return rgb


DECODERS: Mapping[str, Callable[[bytes, ClipFacts, Sequence[int]], Frames]] = {
    "decord": decord_frames,
    "pyav": pyav_frames,
}


def decoders_here() -> tuple[str, ...]:
    """The decoders that are installed, in the order in which they are tried."""
    packages = {"decord": "decord", "pyav": "av"}
    return tuple(name for name in DECODER_NAMES if find_spec(packages[name]))


def read_frames(decoder: str, data: bytes, facts: ClipFacts, wanted: Sequence[int]) -> Frames:
    """The wanted frames of a video, one after the other.

    Args:
        decoder: a name of DECODERS.
        data: the video file.
        facts: what its container says.
        wanted: frame numbers in increasing order, without repeats.

    Yields:
        The number and uint8 RGB (H, W, 3) of each frame, turned as its container says.

    Raises:
        SourceError: a frame cannot be decoded, or is not what the container promised.
    """
    frames = DECODERS[decoder](data, facts, wanted)
    while (found := decoding(lambda: next(frames, None))) is not None:
        number, frame = found
        if frame.shape[:2] != facts.hw:
            its, promised = (f"{hw[1]}x{hw[0]}" for hw in (frame.shape, facts.hw))
            raise SourceError(
                WRONG_SIZE, f"frame {number} has {its} pixels, its container promised {promised}"
            )
        yield number, frame
