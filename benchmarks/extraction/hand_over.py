r"""What it takes to hand a view over from a decoder: in shared memory, and through pipes as without it.

The decoders render nothing: they answer every request with the same pixels, so that the request with its
source, the reply with its view and the wake-ups of both sides are all that is measured. Both ways take turns;
medians of the processor's milliseconds a view, of both sides, are printed.

    python -m benchmarks.extraction.hand_over [--side 512] [--source-kb 150] [--views 400] [--rounds 5] \
        [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from unittest.mock import patch

from benchmarks.machine import conditions, print_conditions, processor_seconds
from extract.decoding import decoder_pool
from extract.decoding.decoder_pool import DecoderPool
from extract.decoding.messages import shared_memory
from extract.views.view import View

WAYS = {"shared memory": shared_memory, "pipes": lambda: None}
DECODER = """
import numpy as np
from extract.decoding import decoder_process
pixels = np.random.default_rng(0).integers(0, 256, ({side}, {side}, 3), dtype=np.uint8)
decoder_process.render_image = lambda data, original_hw, views: [pixels] * len(views)
decoder_process.main()
"""


def measure(side: int, source_bytes: int, views: int, rounds: int) -> dict[str, dict[str, float]]:
    """Way -> processor ms and ms of a view."""
    hw, source = (side, side), bytes(source_bytes)
    view = View(resized_hw=hw, valid_hw=hw, padded_hw=hw)
    command = (sys.executable, "-P", "-c", DECODER.format(side=side))
    pools = {way: DecoderPool(processes=1, command=command) for way in WAYS}
    took: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):
        for way, pool in pools.items():
            with patch.object(decoder_pool, "shared_memory", WAYS[way]):
                used, began = processor_seconds(), time.perf_counter()
                for _ in range(views if number else 1):  # the first starts the process
                    pool.render_image(source, hw, [view])
                if number:
                    took[way].append((processor_seconds() - used, time.perf_counter() - began))
    return {
        way: {
            name: statistics.median(1e3 * each[index] / views for each in rounds_of_way)
            for index, name in enumerate(("processor_ms", "ms"))
        }
        for way, rounds_of_way in took.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", type=int, default=512, help="of a view in pixels")
    parser.add_argument("--source-kb", type=float, default=150, help="of a compressed image")
    parser.add_argument("--views", type=int, default=400, help="in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="prints JSON instead of a table")
    options = parser.parse_args()
    found = measure(options.side, round(options.source_kb * 1e3), options.views, options.rounds)
    if options.json:
        print(json.dumps({"conditions": conditions(Path("/dev/shm")), **found}))
        return
    print_conditions(conditions(Path("/dev/shm")))
    print(f"\n{'':16}{'processor ms a view':>22}{'ms a view':>12}")
    for way, figures in found.items():
        print(f"{way:16}{figures['processor_ms']:22.3f}{figures['ms']:12.3f}")


if __name__ == "__main__":
    main()
