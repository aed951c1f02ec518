"""Pictures of poses: keypoints joined by the lines of their skeleton, a colour a person or a side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pipelines.metrics.keypoint_ap import PersonTruths, Pose
from pipelines.metrics.oks import SHOWN_SCORE
from pipelines.pictures.palette import palette
from stores.keypoints import KeypointRule

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

SHOWN_PERSON = 0.1
"""Poses of a lower score are left out of pictures."""
_MIDDLE, _FIRST, _SECOND = (255, 210, 60), (255, 90, 70), (70, 160, 255)
"""Keypoints of the middle, and the first and second of pairs that a mirror swaps, as left and right."""
_CUT_PX = 224
_MARGIN = 0.25
"""Of a person's sides, around a cut-out."""


def draw_poses(rgb: Pixels, poses: Sequence[Pose], rule: KeypointRule) -> Pixels:
    """The image (H, W, 3) under its poses of at least SHOWN_PERSON, the highest score on top."""
    return np.asarray(poses_picture(rgb, poses, rule))


def poses_picture(rgb: Pixels, poses: Sequence[Pose], rule: KeypointRule) -> Image.Image:
    """As `draw_poses`; the box of each person in its own colour."""
    picture, colours = Image.fromarray(rgb), palette()
    shown = [pose for pose in poses if pose.score >= SHOWN_PERSON]
    for number, pose in sorted(enumerate(shown), key=lambda each: each[1].score):
        x, y, width, height = pose.box
        red, green, blue = colours[number % len(colours)].tolist()
        _draw_box(picture, (x, y, x + width, y + height), (red, green, blue))
        _draw(picture, pose.keypoints, pose.scores > SHOWN_SCORE, rule, max(width, height))
    return picture


def draw_persons(rgb: Pixels, truth: PersonTruths, rule: KeypointRule) -> Pixels:
    """The image (H, W, 3) under its annotated persons."""
    picture = Image.fromarray(rgb)
    for number in range(len(truth.ids)):
        keypoints = truth.keypoints[number]
        _draw(picture, keypoints[:, :2], keypoints[:, 2] > 0, rule, float(truth.xywh[number, 2:].max()))
    return np.asarray(picture)


def draw_points(
    rgb: Pixels,
    points_K2: Floats,
    shown_K: npt.NDArray[np.bool_],
    rule: KeypointRule,
    size_px: float | None = None,
) -> Pixels:
    """The image (H, W, 3) under one person.

    Args: size_px: long side of the person; None: it fills the image.
    """
    picture = Image.fromarray(rgb)
    _draw(picture, points_K2, shown_K, rule, max(rgb.shape[:2]) if size_px is None else size_px)
    return np.asarray(picture)


def cut_out(rgb: Pixels, box: tuple[float, float, float, float]) -> tuple[Pixels, Floats, float]:
    """A square of _CUT_PX pixels around a box, black beside the image; the x, y of its corner in the image,
    and by what a pixel of the image is scaled."""
    x, y, width, height = box
    side = max(width, height, 2.0) * (1 + 2 * _MARGIN)
    corner = np.array([x + width / 2 - side / 2, y + height / 2 - side / 2])
    extent = (corner[0], corner[1], corner[0] + side, corner[1] + side)
    part = Image.fromarray(rgb).transform(
        (_CUT_PX, _CUT_PX), Image.Transform.EXTENT, extent, resample=Image.Resampling.BILINEAR
    )
    return np.asarray(part), corner, _CUT_PX / side


def _draw(
    picture: Image.Image,
    points_K2: Floats,
    shown_K: npt.NDArray[np.bool_],
    rule: KeypointRule,
    size_px: float,
) -> None:
    """Args: size_px: long side of the person, which lines are as thick as a fiftieth of."""
    pen, colours = ImageDraw.Draw(picture), _colours(rule)
    thick = max(1, min(8, round(size_px / 60)))
    for first, second in rule.skeleton:
        if shown_K[first] and shown_K[second]:
            ends = [tuple(points_K2[number].tolist()) for number in (first, second)]
            same = colours[first] if colours[first] == colours[second] else _MIDDLE
            pen.line(ends, fill=same, width=thick)
    radius = 1.4 * thick
    for number, (x, y) in enumerate(points_K2.tolist()):
        if shown_K[number]:
            pen.ellipse(
                (x - radius, y - radius, x + radius, y + radius), fill=colours[number], outline="black"
            )


def _colours(rule: KeypointRule) -> list[Colour]:
    firsts, seconds = ({pair[side] for pair in rule.flip_pairs} for side in (0, 1))
    return [
        _FIRST if number in firsts else _SECOND if number in seconds else _MIDDLE
        for number in range(len(rule))
    ]


def _draw_box(picture: Image.Image, corners: tuple[float, float, float, float], colour: Colour) -> None:
    ImageDraw.Draw(picture).rectangle(corners, outline=colour, width=max(1, min(picture.size) // 250))
