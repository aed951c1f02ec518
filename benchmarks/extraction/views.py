"""What a view of a photograph takes: decoding, resizing the image or the crop alone, colours; one process.

    python -m benchmarks.extraction.views FOLDER [--views 8] [--images 50]

FOLDER holds photographs. `decode / views` is what a view pays of the decoding that its record's views share.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.machine import conditions, print_conditions
from extract.datasets import view_recipe
from extract.sources.byte_sources import decode_picture
from extract.sources.record import Record


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--images", type=int, default=50)
    options = parser.parse_args()
    recipe = view_recipe("ade20k", "ade20k")
    took: dict[str, list[float]] = defaultdict(list)

    def timed(name: str, began: float) -> None:
        took[name].append(1e3 * (time.process_time() - began))

    for path in sorted(options.folder.rglob("*.jpg"))[: options.images]:
        data = path.read_bytes()
        began = time.process_time()
        picture = decode_picture(data)
        timed("decode", began)
        record = Record(path.stem, len(data), (picture.height, picture.width))
        for number in range(options.views):
            view = recipe.view("ade20k", record, number, 0)
            for name, revision in (("resize whole", 1), ("resize crop", 2)):
                began = time.process_time()
                crop = replace(view, revision=revision).cropped(picture)
                timed(name, began)
            began = time.process_time()
            view.colour.apply(crop)
            timed("colour", began)
            began = time.process_time()
            view.apply_picture(picture)
            timed("view, decoded", began)
    print_conditions(conditions(options.folder))
    means = {name: sum(values) / len(values) for name, values in took.items()}
    means["decode / views"] = means["decode"] / options.views
    for name, mean in means.items():
        print(
            f"{name:16} mean {mean:6.2f} ms"
            + (f"  median {median(took[name]):6.2f} ms" if name in took else "")
        )
    print(f"{'a view in all':16} mean {means['view, decoded'] + means['decode / views']:6.2f} ms")


if __name__ == "__main__":
    main()
