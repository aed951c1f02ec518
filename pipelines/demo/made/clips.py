"""Made clips in which one texture turns into another, and their files in Kinetics-400's official layout.

Classes come in pairs, "road to grass" and "grass to road": played backwards, a clip of the one is a clip of
the other, and a mean over its frames is the same. They differ only in frame order.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from extract.datasets.k400 import DEFAULT_FOLDER
from extract.views.clip_recipes import STRIDE
from extract.views.clip_view import CLIP_FRAMES
from pipelines.demo.made.textures import generator, paint

CHANGES = (("road", "grass"), ("wall", "water"), ("field", "tree"))
"""The two textures of each pair of classes."""
SIDE_HW = (72, 96)
"""Height and width of a frame in pixels."""
MOMENTS = CLIP_FRAMES + 2
"""Pictures of a clip, each shown for STRIDE frames. The one clip of a single test view then sees the same
pictures, in the opposite order, whichever way the video runs: `single` shows all but the first and the last
of them, each once."""
FRAMES = MOMENTS * STRIDE
FRAMES_PER_S = 25
_DRIFT_PX = 1.5
_QUANTISER = 3
_SECONDS, _REVERSED = "_000000_000010", "-reversed"

Clip = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeClip:
    """A clip as it is listed."""

    name: str
    """Stands for a video's id."""
    label: str
    pictures: Clip
    """RGB (MOMENTS, H, W, 3)."""

    @property
    def key(self) -> str:
        """Of its record: the stem of its file."""
        return f"{self.name}{_SECONDS}"


CLASS_NAMES = tuple(sorted(chain.from_iterable((f"{a} to {b}", f"{b} to {a}") for a, b in CHANGES)))
"""In the order of their numbers, which is that of Kinetics: sorted."""


def reversal_of(label: str) -> str:
    """The class of the same clips played backwards.

    >>> reversal_of("road to grass")
    'grass to road'
    """
    return " to ".join(reversed(label.split(" to ")))


def make_clip(split: str, number: int) -> MadeClip:
    """Clip `number` of a split, the same on every machine: its class goes round with the number."""
    label = CLASS_NAMES[number % len(CLASS_NAMES)]
    rng = generator("clip", split, number)
    height, width = SIDE_HW
    margin = int(_DRIFT_PX * MOMENTS) + 1
    before, behind = (
        paint(rng, texture, (height + margin, width + margin)) for texture in label.split(" to ")
    )
    share_T = _shares(rng)
    drift_y, drift_x = rng.uniform(0, _DRIFT_PX, 2)
    grain = rng.uniform(2, 8)
    pictures = np.empty((MOMENTS, height, width, 3), np.uint8)
    for moment, share in enumerate(share_T):
        y, x = int(drift_y * moment), int(drift_x * moment)
        window = slice(y, y + height), slice(x, x + width)
        mixed = (1 - share) * before[window] + share * behind[window]
        noise = grain * rng.standard_normal(mixed.shape, np.float32)
        pictures[moment] = np.clip(mixed + noise, 0, 255).astype(np.uint8)
    return MadeClip(name=f"{split}{number:05d}", label=label, pictures=pictures)


def _shares(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """How much of the second texture each picture shows, 0 to 1: a change somewhere in the middle half.

    Drawn so that a change and its reversal are equally likely: neither its time nor its speed depends
    on the direction of the clip.
    """
    middle = rng.uniform(0.3, 0.7) * (MOMENTS - 1)
    half = rng.uniform(1, 4)
    shares: npt.NDArray[np.float64] = np.clip((np.arange(MOMENTS) - middle) / (2 * half) + 0.5, 0, 1)
    return shares


def reversed_clip(clip: MadeClip) -> MadeClip:
    """The clip played backwards, a clip of the other class of its pair."""
    return MadeClip(name=clip.name + _REVERSED, label=reversal_of(clip.label), pictures=clip.pictures[::-1])


def key_of_reversal(key: str) -> str:
    """The key of the record that is a record's reversal.

    >>> key_of_reversal("val00007_000000_000010")
    'val00007-reversed_000000_000010'
    """
    return key.replace(_SECONDS, _REVERSED + _SECONDS)


def write_training(root: Path, count: int) -> Path:
    """Writes clips 0..count-1 of the training split. Returns the data set's folder."""
    return _write_split(root, "train", [(number, False) for number in range(count)])


def write_validation(root: Path, count: int) -> Path:
    """Writes clips 0..count-1 of the validation split, each with its reversal. Returns the data set's
    folder."""
    return _write_split(root, "val", [(number, back) for number in range(count) for back in (False, True)])


def _write_split(root: Path, split: str, listed: list[tuple[int, bool]]) -> Path:
    """Clips that are there already stay as they are."""
    folder, rows = root / DEFAULT_FOLDER, []
    for number, back in listed:
        name, label = f"{split}{number:05d}", CLASS_NAMES[number % len(CLASS_NAMES)]
        if back:
            name, label = name + _REVERSED, reversal_of(label)
        path = folder / "videos" / label / f"{name}{_SECONDS}.mp4"
        if not path.exists():
            clip = make_clip(split, number)
            write_video(path, (reversed_clip(clip) if back else clip).pictures)
        rows.append((label, name, 0, 10, split))
    with (folder / f"{split}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("label", "youtube_id", "time_start", "time_end", "split"), *rows])
    return folder


def write_video(path: Path, pictures: Clip) -> None:
    """Encodes each of RGB (M, H, W, 3) STRIDE times, all-intra: a frame's pixels follow from its picture
    alone, so that a reversed video decodes to the reversed frames."""
    import av  # late: only those who make clips need an encoder

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")  # so that a killed demo leaves no half file behind
    with av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("mjpeg", rate=FRAMES_PER_S)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuvj420p"
        stream.options = {"qmin": str(_QUANTISER), "qmax": str(_QUANTISER)}
        for picture in pictures:
            for _ in range(STRIDE):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    os.replace(partial, path)
