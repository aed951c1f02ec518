"""Small Kinetics folders: videos of seeded noise in motion, encoded by PyAV, in the official layout."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from PIL import Image

CLASSES = ("abseiling", "air drumming", "arm wrestling")


def made_frames(seed: int, count: int, hw: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """uint8 RGB (H, W, 3): a pattern that moves, so that no two frames are alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(coarse).resize((2 * hw[1], 2 * hw[0]), Image.Resampling.BICUBIC))
    frames = []
    for number in range(count):
        x, y = (3 * number) % hw[1], (number * hw[0] // max(1, count)) % hw[0]
        frames.append(np.ascontiguousarray(large[y : y + hw[0], x : x + hw[1]]))
    return frames


def video_bytes(
    frames: Sequence[np.ndarray],
    *,
    kind: str = "mp4",
    codec: str = "libx264",
    keys_every: int = 12,
    b_frames: int = 2,
    times: Sequence[int] | None = None,
    rotation: int = 0,
    options: Mapping[str, str] | None = None,
    index_first: bool = False,
    container_options: Mapping[str, str] | None = None,
    pixels: str = "yuv420p",
) -> bytes:
    """An encoded video.

    Args:
        kind: FFmpeg's name of the container.
        times: when each frame is shown, in 1/600 s; None: 25 frames a second.
        rotation: degrees that players turn the frames by, counter-clockwise.
        options: of the encoder.
        index_first: an mp4's index stands before its frames, as on the web.
        container_options: of the container's writer.
        pixels: FFmpeg's name of the format that frames are stored in.
    """
    file = io.BytesIO()
    settings = {**({"moov_size": "65536"} if index_first else {}), **(container_options or {})}
    with av.open(file, "w", format=kind, options=settings) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.gop_size = keys_every
        stream.codec_context.max_b_frames = b_frames
        stream.codec_context.time_base = Fraction(1, 600)
        if codec == "libx264":
            stream.options = {"preset": "superfast", "crf": "18"}
        if codec == "libx265":
            stream.options = {"preset": "superfast", "x265-params": "log-level=none"}
        if options:
            stream.options = dict(options)
        if rotation:
            stream.set_display_rotation(rotation)
        for number, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = times[number] if times else 24 * number, Fraction(1, 600)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def decoded(data: bytes, rotation: int = 0, limit: int | None = None) -> list[np.ndarray]:
    """The frames of a video, uint8 RGB (H, W, 3), by PyAV from the first to the last or `limit`-th."""
    with av.open(io.BytesIO(data)) as container:
        frames = islice(container.decode(video=0), limit)
        return [np.rot90(frame.to_ndarray(format="rgb24"), rotation // 90) for frame in frames]


def write_clips(root: Path, split: str, clips: Sequence[tuple[str, str, bytes]], ending: str = "mp4") -> None:
    """Clips (id, label, bytes) in the official layout, with the split's csv."""
    lines = ["label,youtube_id,time_start,time_end,split"]
    for name, label, data in clips:
        folder = root / "videos" / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}_000003_000013.{ending}").write_bytes(data)
        lines.append(f"{label},{name},3,13,{split}")
    (root / f"{split}.csv").write_text("\n".join(lines) + "\n")


def write_folder(parent: Path, train: int = 4, val: int = 2, frames: int = 70) -> Path:
    """A data set of three classes with so many clips; returns its folder."""
    root = parent / "kinetics400"
    for split, count, first in (("train", train, 0), ("val", val, 100)):
        sizes = ((48, 64), (64, 48), (40, 72))
        clips = [
            (
                f"{split}clip{number:03d}",
                CLASSES[number % len(CLASSES)],
                video_bytes(made_frames(first + number, frames + number, sizes[number % 3])),
            )
            for number in range(count)
        ]
        write_clips(root, split, clips)
    return root
