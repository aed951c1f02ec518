"""Keypoints of own data as a description lists them: by name, so that nobody counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stores.keypoints import KeypointRule, Pairs

MOST_KEYPOINTS = 1000
USUAL_SIGMA = 0.05
"""Of keypoints whose description has none: between those of COCO's faces (0.025) and of its hips (0.107)."""


def read_keypoints(found: Mapping[str, Any]) -> KeypointRule:
    """The rule of a description's `keypoints`, a list of names, with `skeleton` and `flip_pairs`, lists of
    pairs of them, `sigmas`, a number each or one for all, and `upper_body`, a list of names.

    Raises ValueError, naming the key.
    """
    names = _names(found["keypoints"], "keypoints")
    if not 0 < len(names) <= MOST_KEYPOINTS or len(set(names)) < len(names):
        raise ValueError(f"keypoints: {len(names)} names, expected 1 to {MOST_KEYPOINTS}, none twice")
    number = {name: place for place, name in enumerate(names)}
    return KeypointRule(
        names=tuple(names),
        flip_pairs=_pairs(found.get("flip_pairs", []), "flip_pairs", number),
        skeleton=_pairs(found.get("skeleton", []), "skeleton", number),
        sigmas=_sigmas(found.get("sigmas", USUAL_SIGMA), len(names)),
        upper_body=tuple(
            _number(name, "upper_body", number) for name in _names(found.get("upper_body", []), "upper_body")
        ),
    )


def _names(value: Any, key: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ValueError(f"{key}: {str(value)[:80]}, expected a list of names of keypoints")
    return value


def _pairs(value: Any, key: str, number: Mapping[str, int]) -> Pairs:
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise ValueError(f"{key}: {str(value)[:80]}, expected a list of pairs of names, [[left, right], ...]")
    return tuple((_number(first, key, number), _number(second, key, number)) for first, second in value)


def _number(name: Any, key: str, number: Mapping[str, int]) -> int:
    if name not in number:
        raise ValueError(f"{key}: {str(name)[:40]!r} is none of the keypoints {', '.join(number)[:200]}")
    return number[name]


def _sigmas(value: Any, count: int) -> tuple[float, ...]:
    values: Sequence[Any] = [value] * count if type(value) in (int, float) else value
    is_list = isinstance(values, list) and all(type(each) in (int, float) for each in values)
    if not is_list or len(values) != count:
        raise ValueError(f"sigmas: {str(value)[:80]}, expected a number, or {count} of them")
    return tuple(map(float, values))
