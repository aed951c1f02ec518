"""How much a codec changed the features: measured on sample rows, told in receipts, limited on request."""

from __future__ import annotations

import logging

from extract.encoded_batch import HostBatch, as_array
from stores.codec import error_figures
from stores.errors import CodecError

logger = logging.getLogger(__name__)

WARN_MEDIAN, WARN_WORST = 0.02, 0.10
"""Relative to a channel's standard deviation: of the median and the worst channel. A live bf16 backbone errs
by 0.007 to 0.019."""

Figures = dict[str, dict[str, float]]


class CodecErrors:
    """The figures of a shard, by level: of its worst sample row."""

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self.figures: Figures = {}

    def measure(self, batch: HostBatch, what: str) -> None:
        """Adds the sample row of a batch, where it has one that can be stored.

        Raises CodecError where a level's median error exceeds the limit, or its worst channel's as many times
        the limit as the warning's worst is its median.
        """
        if batch.sample_index is None or batch.problem(batch.sample_index):
            return
        for level, (x, decoded) in batch.sample.items():
            found = error_figures(as_array(x), as_array(decoded))
            known = self.figures.get(level)
            if known is None:
                self.figures[level] = found
                continue
            if found["worst"] > known["worst"]:
                known["worst"], known["worst_channel"] = found["worst"], found["worst_channel"]
            known["median"] = max(known["median"], found["median"])
        if self._limit is not None:
            self._stop_beyond(self._limit, what)

    def _stop_beyond(self, limit: float, what: str) -> None:
        for level, found in self.figures.items():
            if found["median"] > limit or found["worst"] > limit * WARN_WORST / WARN_MEDIAN:
                raise CodecError(
                    f"{what}: {_described(level, found)}; the limit is {limit:.1%} of the median channel and "
                    f"{limit * WARN_WORST / WARN_MEDIAN:.1%} of the worst; try the codec float16"
                )


class CodecWarnings:
    """Warns of a level's error once, at its first shard beyond what is usual."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def look_at(self, figures: Figures, what: str) -> None:
        for level, found in figures.items():
            if level not in self._warned and (found["median"] > WARN_MEDIAN or found["worst"] > WARN_WORST):
                self._warned.add(level)
                logger.warning(
                    "%s: %s; above %.0f %% and %.0f %% heads may suffer: compare with the codec float16",
                    *(what, _described(level, found), 100 * WARN_MEDIAN, 100 * WARN_WORST),
                )


def _described(level: str, found: dict[str, float]) -> str:
    return (
        f"the codec changes {level} by {found['median']:.1%} of the standard deviation in the median channel "
        f"and {found['worst']:.1%} in channel {found['worst_channel']:.0f}"
    )
