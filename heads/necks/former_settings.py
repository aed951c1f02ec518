"""Neck settings of earlier versions (`bifpn_layers`, `residual_blocks`, `bifpn_norm`), translated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from heads.contract import HeadError, check_int

_COUNTS = {"bifpn": "bifpn_layers", "fpn-res": "residual_blocks"}
_NAMES = (*_COUNTS.values(), "bifpn_norm")


class NeckSettings(Protocol):
    """The settings of a head with a neck."""

    @property
    def neck(self) -> str: ...
    @property
    def neck_depth(self) -> int: ...


def translate_neck_settings(preset: NeckSettings, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with settings of earlier versions replaced by `neck`, `neck_depth` and `neck_norm`.

    Former counts fell back to the preset's: `fpn` with bifpn_layers=3 is neck bifpn of depth 3, `bifpn5` with
    bifpn_layers=0 is neck fpn.

    Raises:
        HeadError: former and present names together, or a former count out of range.
    """
    former = [name for name in _NAMES if name in given]
    if not former:
        return dict(given)
    if present := [name for name in ("neck", "neck_depth", "neck_norm") if name in given]:
        raise HeadError(
            f"settings {', '.join(former)} (of earlier versions) and {', '.join(present)} together: use "
            f"neck, neck_depth and neck_norm only"
        )
    found = {name: value for name, value in given.items() if name not in _NAMES}
    if "bifpn_norm" in given:
        found["neck_norm"] = given["bifpn_norm"]
    if any(name in given for name in _COUNTS.values()):
        found |= _neck_of_counts(preset, given)
    return found


def _neck_of_counts(preset: NeckSettings, given: Mapping[str, Any]) -> dict[str, Any]:
    counts = {neck: preset.neck_depth if preset.neck == neck else 0 for neck in _COUNTS}
    for neck, name in _COUNTS.items():
        counts[neck] = given.get(name, counts[neck])
        check_int(name, counts[neck], 0, 16)
    chosen = [neck for neck, count in counts.items() if count]
    if len(chosen) > 1:
        given_counts = " and ".join(f"{_COUNTS[neck]}={count}" for neck, count in counts.items())
        raise HeadError(f"{given_counts} together: one of them must be 0")
    neck, depth = (chosen[0], counts[chosen[0]]) if chosen else ("fpn", 1)
    return {"neck": neck, "neck_depth": depth}
