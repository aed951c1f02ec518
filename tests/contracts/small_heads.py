"""Heads with settings that make any of them quick."""

import dataclasses

from heads import build_head, head_settings
from heads.contract import Head
from stores.pyramid import PyramidSpec

SMALL = {"width": 16, "queries": 12, "points": 112, "drop_path": 0.0}
SMALL |= {"rpn_samples": 4096, "candidates": 64, "proposals": 16, "test_candidates": 32, "test_proposals": 16}
SMALL |= {"roi_samples": 32, "box_width": 64, "mask_width": 16, "detections": 8, "anchor_scale": 4.0}
"""No part of a head is left out by chance; each takes those settings that it knows."""


def build_small_head(
    name: str, task: str, pyramid: PyramidSpec, classes: int, *, seed: int = 0, **settings: object
) -> Head:
    known = {field.name for field in dataclasses.fields(head_settings(name, task))}
    small = {key: value for key, value in SMALL.items() if key in known}
    return build_head(name, task, pyramid, classes, seed=seed, **small, **settings)
