"""Every claim about a GPU in one command of about eight minutes, offline, on a machine that has little.

    python -m benchmarks.gpu [--parts fed,extraction,...] [--out build/gpu-benchmark] [--tiny] [--device cuda]

Python 3.12, torch, torchvision, timm, transformers and lightning are enough beside the wheels that
`make gpu-wheels` has collected. Parts run one after another, each in processes of its own, which end at the
part's limit; what they had measured by then is kept, and the part is named. result.json and result.md are
written anew with every figure. Exit code 1 where a part was cut or failed. `--tiny` runs every part on small
input, on any device.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.gpu.parts import PARTS, Part
from benchmarks.gpu.results import Results
from benchmarks.gpu.run_part import run_part
from benchmarks.gpu.wheels import WHEELS, prepared_environment


def names_of(text: str) -> list[Part]:
    by_name = {part.name: part for part in PARTS}
    if unknown := [name for name in text.split(",") if name not in by_name]:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; available: {', '.join(by_name)}")
    return [by_name[name] for name in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", type=names_of, default=list(PARTS), help="names with commas; default: all")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-benchmark"))
    parser.add_argument("--wheels", type=Path, default=WHEELS, help="what `make gpu-wheels` has collected")
    parser.add_argument("--tiny", action="store_true", help="small input, few rounds, nothing compiled")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--limit-factor", type=float, default=1.0, help="times every limit")
    options = parser.parse_args()
    environment = prepared_environment(options.wheels, dict(os.environ))
    results = Results(
        options.out,
        options.parts,
        tiny=options.tiny,
        device=options.device,
        limit_factor=options.limit_factor,
    )
    for part in options.parts:
        run_part(part, results, environment, options)
    print(results.table())
    print(f"\n{results.json_path}\n{results.table_path}")
    return 1 if results.problems else 0


if __name__ == "__main__":
    sys.exit(main())
