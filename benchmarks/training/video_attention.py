"""How attention over the tokens of a clip grows with its length: forward and backward, in turns.

The backward pass of `biased_attention` goes piece by piece. Beside it stands the same with all heads of a
clip in one piece, whatever its size, which it replaces. Medians of the processor time on a CPU, of the clock
on a GPU.

    python -m benchmarks.training.video_attention [--frames 8,16,32] [--heads 16] [--clips 1] [--rounds 5]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.machine import conditions, print_conditions
from benchmarks.training.video_heads import measure
from heads.video import biased_attention

CELLS = 49
"""Of a frame of 224 px at stride 32."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=lambda t: [int(n) for n in t.split(",")], default=[8, 16, 32])
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--clips", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    usual_bytes = biased_attention.PIECE_BYTES if on_gpu else biased_attention.CPU_PIECE_BYTES
    print_conditions(conditions(Path.cwd()))
    unit = "ms by the clock" if on_gpu else "processor ms"
    print(f"{options.heads} heads of 32 channels, {options.clips} clips, {unit}\n")
    print("| frames | tokens | at once | in pieces | times as fast | of half as many frames |")
    print("|---|---|---|---|---|---|")
    before: float | None = None
    for frames in options.frames:
        tokens = CELLS * frames
        shape = (options.clips, options.heads, tokens, 32)
        q, k, v = (torch.randn(shape, device=device, requires_grad=True) for _ in range(3))
        bias = torch.randn(options.heads, tokens, tokens, device=device, requires_grad=True)
        weight = torch.randn(shape, device=device)
        found = measure(
            {
                "at once": lambda: both_ways(1 << 40, q, k, v, bias, weight),  # noqa: B023
                "in pieces": lambda: both_ways(usual_bytes, q, k, v, bias, weight),  # noqa: B023
            },
            options.rounds,
            device,
        )
        grown = "" if before is None else f"{found['in pieces'] / before:.2f}"
        print(
            f"| {frames} | {tokens} | {found['at once']:.0f} | {found['in pieces']:.0f} | "
            f"{found['at once'] / found['in pieces']:.2f} | {grown} |",
            flush=True,
        )
        before = found["in pieces"]


def both_ways(piece_bytes: int, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, weight: Tensor) -> None:
    """A forward and a backward pass in pieces of this size at most."""
    biased_attention.PIECE_BYTES = biased_attention.CPU_PIECE_BYTES = piece_bytes
    torch.autograd.grad(biased_attention.biased_attention(q, k, v, bias), [q, k, v, bias], weight)


if __name__ == "__main__":
    main()
