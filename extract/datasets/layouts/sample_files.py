"""Files of tiny samples: smooth images and short videos, drawn from a generator."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

SAMPLE_SIZES_HW = ((64, 80), (80, 64), (64, 64))
"""Sizes that samples take in turn."""


def sample_image(generator: np.random.Generator, hw: tuple[int, int]) -> Pixels:
    """uint8 RGB (H, W, 3), smooth enough that JPEG keeps it."""
    coarse = generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(hw[::-1], Image.Resampling.BICUBIC))


def image_bytes(image: Pixels, kind: str) -> bytes:
    """The file of an image, uint8 (H, W, 3) or (H, W); `kind` as PIL names it: JPEG or PNG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


def sample_video(generator: np.random.Generator, hw: tuple[int, int], frames: int = 70) -> bytes:
    """An MP4 of 25 frames a second that moves across a smooth image; even H and W."""
    import av  # loads FFmpeg, which reading a data set's lists does not need

    image = sample_image(generator, (2 * hw[0], 2 * hw[1]))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "superfast"})
        stream.height, stream.width, stream.pix_fmt = *hw, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for number in range(frames):
            y, x = number * hw[0] // frames, number % hw[1]
            shown = np.ascontiguousarray(image[y : y + hw[0], x : x + hw[1]])
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()
