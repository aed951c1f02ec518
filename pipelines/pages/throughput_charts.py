"""Charts of an extraction's throughput over time, from the log of its store."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.pages.charts import Chart, Line, line_chart
from pipelines.pages.store_log import Interval, StoreLog

MAX_WRITERS = 8
MAX_POINTS = 300
STAGES = ("decode", "backbone", "write")


def throughput_charts(log: StoreLog) -> list[Chart]:
    """Images a second of each writer, and where the time of all writers went; none without a log."""
    writers = [_thinned(intervals) for intervals in log.intervals[-MAX_WRITERS:]]
    if not writers:
        return []
    left_out = len(log.intervals) - len(writers)
    charts = [
        line_chart(
            "throughput",
            [
                Line(
                    run=place, x=[i.minutes for i in of], y=[i.images_per_s for i in of], markers=len(of) < 30
                )
                for place, of in enumerate(writers)
            ],
            x="minutes since the start",
            y="images a second",
            caption="Rows done between two finished shards, a line a process"
            + (f"; {left_out} earlier processes are left out." if left_out else "."),
            whole_x=False,
        )
    ]
    longest = max(writers, key=len)
    known = [interval for interval in longest if interval.share]
    if known:
        charts.append(
            line_chart(
                "stages",
                [
                    Line(
                        run=place,
                        x=[i.minutes for i in known],
                        y=[100 * max(0.0, i.share[stage]) for i in known],
                        markers=len(known) < 30,
                        label=stage,
                    )
                    for place, stage in enumerate(STAGES)
                ],
                x="minutes since the start",
                y="time, %",
                caption="Where the backbone's thread spent its time: waiting for decoded views, computing, "
                "waiting for room to write.",
                whole_x=False,
            )
        )
    return charts


def _thinned(intervals: Sequence[Interval]) -> Sequence[Interval]:
    return intervals[:: max(1, len(intervals) // MAX_POINTS)]
