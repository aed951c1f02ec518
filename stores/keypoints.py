"""The keypoints of a store of persons, as its identity has them: names, pairs that a mirror image swaps,
skeleton, sigmas of OKS, upper body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class KeypointRule:
    """Numbers of keypoints count from 0. Raises ValueError for lists that do not fit together."""

    names: tuple[str, ...]
    flip_pairs: Pairs = ()
    """Left and right ones, which change places in a mirror image."""
    skeleton: Pairs = ()
    """Those that a line joins in pictures."""
    sigmas: tuple[float, ...]
    """Of each, the standard deviation of its annotations over the square root of the person's area: what
    object keypoint similarity (OKS) divides distances by."""
    upper_body: tuple[int, ...] = ()
    """Those of the upper half; the others are the lower one. Empty: no views of half a body."""

    def __post_init__(self) -> None:
        count = len(self.names)
        if not count or len(set(self.names)) < count:
            raise ValueError(f"keypoints {list(self.names)[:40]}, expected one or more names, none twice")
        if len(self.sigmas) != count or not all(0 < sigma < 10 for sigma in self.sigmas):
            raise ValueError(f"sigmas {list(self.sigmas)[:40]}, expected {count} numbers above 0")
        for what, numbers in (
            ("flip_pairs", [number for pair in self.flip_pairs for number in pair]),
            ("upper_body", list(self.upper_body)),
        ):
            if len(set(numbers)) < len(numbers):
                raise ValueError(f"{what}: a keypoint stands twice in {numbers}")
        used = [*self.upper_body, *(number for pair in (*self.flip_pairs, *self.skeleton) for number in pair)]
        if used and not 0 <= min(used) <= max(used) < count:
            raise ValueError(f"keypoints {min(used)} to {max(used)} of {count}, numbered from 0")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def mirrored(self) -> tuple[int, ...]:
        """Of each keypoint of a mirror image, the number that it has in the image.

        >>> KeypointRule(names=("nose", "left", "right"), sigmas=(0.1,) * 3, flip_pairs=((1, 2),)).mirrored
        (0, 2, 1)
        """
        order = list(range(len(self)))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return tuple(order)

    def to_json(self) -> dict[str, Any]:
        """All but the names, which are the classes in a store's identity: its `task_facts`."""
        return {
            "flip_pairs": [list(pair) for pair in self.flip_pairs],
            "skeleton": [list(pair) for pair in self.skeleton],
            "sigmas": list(self.sigmas),
            "upper_body": list(self.upper_body),
        }


def rule_from_json(names: Sequence[str], fields: Mapping[str, Any]) -> KeypointRule:
    """The inverse of `to_json`. Raises ValueError for lists that do not fit together."""

    def pairs(name: str) -> Pairs:
        return tuple((int(first), int(second)) for first, second in fields.get(name, ()))

    return KeypointRule(
        names=tuple(map(str, names)),
        flip_pairs=pairs("flip_pairs"),
        skeleton=pairs("skeleton"),
        sigmas=tuple(map(float, fields["sigmas"])),
        upper_body=tuple(map(int, fields.get("upper_body", ()))),
    )
