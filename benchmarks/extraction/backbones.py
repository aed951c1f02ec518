r"""Backbones alone: timm as people write it, timm compiled, ours, ours compiled; one run, in turns.

A case is a model, a side in pixels and a batch: swinv2-t:512:32. Every rival has a process of its own: all
build and compile side by side, then those of a case take turns. Each gets the same batch on its device: timm
normalised float pixels, ours uint8 pixels, which it normalises. The medians of the rounds are printed in
milliseconds an image, with the processors' time, and how many times as fast as timm eager each is, round by
round. Weights are those of a new model: drawn ones may ask for float32 in places (see
extract.backbones.precision), and else speed does not depend on them. What an extraction runs is `ours` on a
CPU and `ours compiled` on a GPU.

    python -m benchmarks.extraction.backbones [swinv2-t:512:2 ...] [--no-compile] \
        [--rivals "timm eager,ours compiled"]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import timm
import torch

from benchmarks.rivals import Rival, compare
from extract.backbones.frozen import PRECISIONS, FrozenBackbone
from extract.backbones.loading import BackboneCard, backbone_card, build_trunk, default_precision
from extract.backbones.weights import Weights

RIVALS = ("timm eager", "timm compiled", "ours", "ours compiled")


class Case(NamedTuple):
    model: str
    size_px: int
    batch: int


CASES = {
    "cpu": [Case("swinv2-t", 512, 2)],
    "cuda": [
        Case("swinv2-t", 512, 32),
        Case("swinv2-b", 512, 32),
        Case("swinv2-l", 512, 16),
        Case("swinv2-g", 640, 1),
    ],
}
"""That are run where none is named: those with goals."""
GOALS = {
    "cpu": {"swinv2-t": 1.15},
    "cuda": {"swinv2-t": 2.5, "swinv2-b": 2.5, "swinv2-l": 2.2, "swinv2-g": 2.4},
}
"""Least speed over timm eager of what an extraction runs, at those cases."""
GOAL_OVER_COMPILED = 1.08
"""Least speed over timm compiled, on a GPU."""


def timm_forward(
    card: BackboneCard, device: torch.device, dtype: torch.dtype, pixels: torch.Tensor, compiled: bool
) -> Callable[[], object]:
    """timm's own model, as people run it: its padding, all four levels, weights and pixels in `dtype`."""
    with device:  # a giant's weights are drawn for minutes on a CPU
        model: Any = timm.create_model(card.timm_id, num_classes=0, **card.constructor_args)
    model = model.eval().to(device, dtype)
    x = pixels.to(device).permute(0, 3, 1, 2).to(dtype).contiguous()

    def forward() -> object:
        return model.forward_intermediates(x, intermediates_only=True)

    return torch.compile(forward) if compiled else forward


def our_forward(
    card: BackboneCard, device: torch.device, precision: str, pixels: torch.Tensor, compiled: bool
) -> Callable[[], object]:
    with device:
        drawn = build_trunk(card).state_dict()
    weights = Weights({name: tensor.cpu() for name, tensor in drawn.items()}, sha256="untrained")
    del drawn
    backbone = FrozenBackbone(card, weights, device=device, precision=precision, compiled=compiled)
    on_device, valid = pixels.to(device), torch.tensor([pixels.shape[1:3]] * len(pixels))
    return lambda: backbone(on_device, valid)


def make_forward(rival: str, case: Case, device_name: str, precision: str) -> Callable[[], object]:
    """One of RIVALS."""
    logging.getLogger("extract").setLevel(logging.ERROR)  # random weights are what is wanted here
    card, device = backbone_card(case.model), torch.device(device_name)
    shape = (case.batch, case.size_px, case.size_px, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    compiled = rival.endswith("compiled")
    if rival.startswith("timm"):
        return timm_forward(card, device, PRECISIONS[precision], pixels, compiled)
    return our_forward(card, device, precision, pixels, compiled)


def measure(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each case with rival -> figures, or what kept it from running, as soon as it is measured."""
    precision = options.precision or default_precision(torch.device(options.device))
    names = [name for name in options.rivals if not (options.no_compile and name.endswith("compiled"))]
    with ExitStack() as stack:
        started = {
            case: {
                name: stack.enter_context(
                    Rival(make_forward, name, case, options.device, precision, device=options.device)
                )
                for name in names
            }
            for case in options.cases
        }
        until = time.monotonic() + options.ready_s
        problems = {
            case: {name: rival.wait(until) for name, rival in rivals.items()}
            for case, rivals in started.items()
        }
        for case, rivals in started.items():
            able = {name: rival for name, rival in rivals.items() if problems[case][name] is None}
            found = compare({name: rival.turn for name, rival in able.items()}, case.batch, options.rounds)
            for name, rival in able.items():
                found[name]["peak_gib"] = rival.peak_bytes() / 2**30
            failed = {name: {"problem": text} for name, text in problems[case].items() if text is not None}
            yield ":".join(map(str, case)), {**found, **failed}


def a_case(text: str) -> Case:
    """
    >>> a_case("swinv2-g:640:1")
    Case(model='swinv2-g', size_px=640, batch=1)
    """
    model, size_px, batch = text.split(":")
    return Case(model, int(size_px), int(batch))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", type=a_case, help="model:side:batch; default: those with goals")
    parser.add_argument("--rivals", type=lambda text: text.replace("_", " ").split(","), default=list(RIVALS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--ready-s", type=float, default=600, help="who takes longer to build and compile is left out"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: fp16 on a GPU, fp32 on a CPU")
    parser.add_argument("--no-compile", action="store_true", help="leave out what needs a compiler")
    parser.add_argument("--json", action="store_true", help="a line a case, as soon as it is measured")
    options = parser.parse_args(arguments)
    if unknown := set(options.rivals) - set(RIVALS):
        parser.error(f"no rival is called {', '.join(sorted(unknown))}; available: {', '.join(RIVALS)}")
    options.cases = options.cases or CASES[options.device.split(":")[0]]
    return options


def conditions(options: argparse.Namespace) -> str:
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU"
    load = " ".join(f"{load:.2f}" for load in os.getloadavg())
    return (
        f"{where}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, load {load}; torch "
        f"{torch.__version__}, timm {timm.__version__}; {options.rounds} rounds"
    )


def verdicts(case: str, rivals: dict[str, dict[str, Any]], kind: str) -> list[str]:
    """Whether what an extraction runs reaches its goals, where all that it takes was measured."""
    model, ours = case.split(":")[0], rivals.get("ours" if kind == "cpu" else "ours compiled", {})
    goal, said = GOALS[kind].get(model), []
    if "speed" not in ours:
        return said
    if goal and case in (":".join(map(str, named)) for named in CASES[kind]) and "timm eager" in rivals:
        said.append(f"{ours['speed']:.2f} times timm eager, goal {goal}: {_verdict(ours['speed'] >= goal)}")
    theirs = rivals.get("timm compiled", {})
    if kind == "cuda" and "ms_an_image" in theirs:
        ratio = theirs["ms_an_image"] / ours["ms_an_image"]
        met = _verdict(ratio >= GOAL_OVER_COMPILED)
        said.append(f"{ratio:.2f} times timm compiled, goal {GOAL_OVER_COMPILED}: {met}")
    return said


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def main() -> None:
    options = parse(sys.argv[1:])
    print(conditions(options), file=sys.stderr if options.json else sys.stdout, flush=True)
    if options.json:
        for case, rivals in measure(options):
            print(json.dumps({case: rivals}), flush=True)
        return
    print(f"{'':24}{'ms an image':>14}{'least':>10}{'processor':>11}{'speed':>8}{'GiB of a GPU':>14}")
    kind = options.device.split(":")[0]
    for case, rivals in measure(options):
        print(case)
        for name, figures in rivals.items():
            if "problem" in figures:
                print(f"  {name:22}{figures['problem']}")
                continue
            print(
                f"  {name:22}{figures['ms_an_image']:14.2f}{figures['least_ms_an_image']:10.2f}"
                f"{figures['processor_ms_an_image']:11.2f}{figures['speed']:8.2f}{figures['peak_gib']:14.1f}"
            )
        for text in verdicts(case, rivals, kind):
            print(f"  {text}")
    if kind == "cpu":
        print(
            "on a GPU (2.2 to 2.5 times timm eager, 1.08 times timm compiled): not measured, none is at hand"
        )


if __name__ == "__main__":
    main()
