"""Facts from a video's container, without decoding: size, rotation, frames, rate.

The first bytes decide the kind of a container, and it is opened as nothing else: FFmpeg also reads playlists
and scripts that name other files and addresses. Frames are counted in the order in which they are shown;
frame n is the n-th that a decoder gives which begins at the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from extract.decoding.mp4_rotation import mp4_rotation
from extract.sources.byte_sources import SourceError
from stores.format.row_table import OVER_LIMIT, UNDECODABLE

T = TypeVar("T")

LIMIT_PX = 40_000_000
"""Larger frames are skipped: a frame of 8K video has 33 million pixels."""
LIMIT_FRAMES = 1 << 20
"""Longer videos are skipped: ten hours at 29 frames a second."""
LIMIT_ASPECT = 32
"""Frames whose long side is more than so many short ones are skipped: their views would be huge."""
_HEAD_BYTES = 1 << 12  # 4 KiB: what stands before the picture is shorter in all but odd files


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFacts:
    """A video as its container describes it."""

    hw: tuple[int, int]
    """Height and width in pixels, after rotation."""
    frames: int
    fps: float
    """Mean frames a second."""
    rotation: int
    """Degrees counter-clockwise by which decoded frames are turned: 0, 90, 180 or 270."""
    decoder: str
    """Which decoder of video_frames reads it: decord where its frames and their pixels are known to be the
    right ones."""


def container_of(head: bytes) -> str:
    """FFmpeg's name of the container that begins with these bytes. Raises SourceError for any other."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    for start, name in ((b"\x1aE\xdf\xa3", "matroska"), (b"FLV\x01", "flv"), (b"0&\xb2u", "asf")):
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:1] == b"G" and head[188:189] == b"G":
        return "mpegts"
    if not head:
        raise SourceError(UNDECODABLE, "an empty file")
    raise SourceError(
        UNDECODABLE, "not a video of a known container (mp4, mov, mkv, webm, avi, flv, wmv, ts)"
    )


def open_container(file: BinaryIO) -> Any:
    """PyAV's container over a file, opened as what its first bytes say; for use within `decoding`.

    Raises SourceError for an unknown kind, or where there is no picture; FFmpeg's errors as they are.
    """
    import av  # here: nothing but the decoding process needs it

    file.seek(0)
    kind = container_of(file.read(256))
    file.seek(0)
    container = av.open(file, format=kind, mode="r")
    if not container.streams.video:
        raise SourceError(UNDECODABLE, "no video stream")
    container.streams.video[0].thread_count = 1
    return container


def clip_facts(file: BinaryIO) -> ClipFacts:
    """What the container in `file` says.

    Reads headers only, but all packets of containers other than mp4 and mov, which hold no frame count.

    Raises:
        SourceError: no video, one without frames, or beyond the limits.
        OSError: the file could not be read.
    """
    return decoding(lambda: _facts(file))


def _facts(file: BinaryIO) -> ClipFacts:
    with open_container(file) as container:
        stream = container.streams.video[0]
        height, width = stream.height, stream.width
        _check_size(height, width)
        is_mov = "mov" in container.format.name.split(",")
        frames, is_closed = _indexed(stream, file) if is_mov else (0, False)
        if not frames:
            frames, is_closed = _demuxed(container, stream)
        rate = stream.average_rate or stream.guessed_rate
        is_plain = _converts_alike(stream)
    if not 1 <= frames <= LIMIT_FRAMES:
        raise SourceError(
            OVER_LIMIT if frames else UNDECODABLE,
            f"{frames} frames, at most {LIMIT_FRAMES} are read" if frames else "no frames",
        )
    rotation = mp4_rotation(file) if is_mov else 0
    return ClipFacts(
        hw=(height, width) if rotation % 180 == 0 else (width, height),
        frames=frames,
        fps=float(rate or 0),
        rotation=rotation,
        decoder="decord" if is_closed and is_plain and not rotation else "pyav",
    )


def _converts_alike(stream: Any) -> bool:
    """Whether decord makes the same RGB of the frames as PyAV: 8 bits a component and even sides.

    Of 10 and 12 bits, and where a chroma sample covers the half of a pixel pair, decord's converter differs
    by several grey levels.
    """
    pixels = stream.format  # None where the header does not say it
    is_8_bit = pixels is not None and all(component.bits == 8 for component in pixels.components)
    return is_8_bit and stream.height % 2 == stream.width % 2 == 0


def _indexed(stream: Any, file: BinaryIO) -> tuple[int, bool]:
    """Frames by the index of an mp4, and whether decord finds each: all shown, every key frame closed.

    0 frames where the index lacks them.
    """
    entries = list(getattr(stream, "index_entries", ()))  # older PyAVs do not show the index
    if len(entries) != stream.frames:
        return 0, False  # in fragments: the index is spread over the file
    shown = sum(1 for entry in entries if not entry.is_discard)
    if shown < len(entries):
        return shown, False  # decord also counts what an edit list leaves out

    def head(entry: Any) -> bytes:
        file.seek(entry.pos)
        return file.read(min(entry.size, _HEAD_BYTES))

    return shown, all(is_closed(stream, head(entry)) for entry in entries if entry.is_keyframe)


def _demuxed(container: Any, stream: Any) -> tuple[int, bool]:
    """The same of other containers, from their packets."""
    packets = [packet for packet in container.demux(stream) if packet.size]
    shown = sum(1 for packet in packets if not packet.is_discard)
    is_exact = shown == len(packets) and is_timed(container)
    return shown, is_exact and all(is_closed(stream, bytes(p)) for p in packets if p.is_keyframe)


def is_timed(container: Any) -> bool:
    """Whether packets carry correct presentation times; those of other containers are wrong or missing."""
    return not {"mov", "matroska"}.isdisjoint(container.format.name.split(","))


def is_closed(stream: Any, head: bytes) -> bool:
    """Whether all that is shown after a key frame is decoded without what stands before it in the file.

    Others (open groups of pictures, gradual refresh) are marked as key frames too; decoders that begin there
    leave frames out or show broken ones, and decord then counts wrongly.

    Args:
        stream: PyAV's, of the packet.
        head: the first bytes of the key frame's packet.
    """
    name, extra = stream.codec_context.name, bytes(stream.codec_context.extradata or b"")
    if name in ("vp8", "libvpx", "vp9", "libvpx-vp9", "mjpeg"):
        return True
    if name == "h264" and len(extra) > 4 and extra[0] == 1:  # avcC: ISO/IEC 14496-15, 5.3.3
        return 5 in _nal_kinds(head, (extra[4] & 3) + 1, lambda byte: byte & 31)
    if name == "hevc" and len(extra) > 21 and extra[0] == 1:  # hvcC: 8.3.3; 19 and 20 are IDR pictures
        return not {19, 20}.isdisjoint(_nal_kinds(head, (extra[21] & 3) + 1, lambda byte: byte >> 1 & 63))
    return False


def _nal_kinds(head: bytes, length_bytes: int, kind: Callable[[int], int]) -> set[int]:
    """The kinds of the units that begin within `head`, each behind its length."""
    at, kinds = 0, set()
    while at + length_bytes < len(head):
        length = int.from_bytes(head[at : at + length_bytes], "big")
        kinds.add(kind(head[at + length_bytes]))
        at += length_bytes + length
    return kinds


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise SourceError(UNDECODABLE, "frames without a size")
    if height * width > LIMIT_PX:
        raise SourceError(OVER_LIMIT, f"frames of {width}x{height} pixels, at most {LIMIT_PX} are decoded")
    if max(height, width) > LIMIT_ASPECT * min(height, width):
        raise SourceError(
            OVER_LIMIT, f"frames of {width}x{height} pixels: one side is over {LIMIT_ASPECT} times the other"
        )


def decoding(step: Callable[[], T]) -> T:
    """Runs a step of FFmpeg: every error but a lack of memory, or of the file itself, is the data's."""
    try:
        return step()
    except (SourceError, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever broken bytes lead them to
        if isinstance(error, OSError) and not type(error).__module__.startswith("av."):
            raise  # of a file that could not be read; FFmpeg's own errors are of PyAV's classes
        raise SourceError(UNDECODABLE, f"{type(error).__name__}: {_one_line(str(error))}") from None


def _one_line(text: str) -> str:
    """An error text as it may stand in a store: without times, paths, addresses and stacks."""
    text = text.split("Stack trace")[0].strip()
    text = re.sub(r"\[\d\d:\d\d:\d\d\]|\S*/\S+|<[^>]*>|0x[0-9a-f]+", "", text)
    return re.sub(r"\s+", " ", text).strip()[:160]
