"""Batches copied from a GPU: the bytes that a CPU would write of the same features, each in its batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from extract.backbones.loading import backbone_card, load_backbone
from extract.codecs.compiled import coded
from extract.codecs.on_device import decode
from extract.extractor.encode_batch import assemble, encode_batch
from extract.extractor.row_loader import LoadedRow
from tests.extract.backbones.small import SMALL
from tests.faults.made_stores import small_plan

HW = (96, 128)
LEVELS = ("p2", "p5")


def loaded_row(seed: int) -> LoadedRow:
    pixels = np.random.default_rng(seed).integers(0, 256, (*HW, 3), dtype=np.uint8)
    return LoadedRow(pixels=pixels, valid_hw=(90, 128), targets={}, source_sha256=bytes(32))


@pytest.mark.gpu
@pytest.mark.parametrize("codec", ["int8", "float16", "int4"])
def test_batches_in_flight_equal_a_cpus_encoding(codec: str) -> None:
    """On the machine's last GPU: with several, it is not torch's current one."""
    gpu = torch.device("cuda", torch.cuda.device_count() - 1)
    backbone = load_backbone(backbone_card("swinv2-t", SMALL, LEVELS), "random:0", device=gpu)
    batches = [[loaded_row(2 * number), None, loaded_row(2 * number + 1)] for number in range(6)]
    cells = {level: torch.tensor([[3, 0], [11, 5], [1, 2]]) for level in LEVELS}
    plan = small_plan(codec, levels=tuple(backbone.pyramid))
    on_their_way = [
        encode_batch(backbone, plan, assemble(rows, HW, cells, backbone.device)) for rows in batches
    ]
    for rows, batch in zip(batches, on_their_way, strict=True):
        batch.wait()
        pixels = torch.stack(
            [torch.zeros(*HW, 3).byte() if r is None else torch.from_numpy(r.pixels) for r in rows]
        )
        valid = torch.tensor([HW if row is None else row.valid_hw for row in rows])
        for level, x in backbone(pixels, valid).items():
            parts, finite, holds = coded(codec, x.cpu())
            assert finite.equal(batch.finite[level]) and holds.equal(batch.holds[level])
            assert all(part.equal(batch.levels[level][name]) for name, part in parts.items())
            kept, decoded = batch.sample[level]
            row, all_decoded = torch.arange(3)[:, None], decode(codec, parts)
            assert kept.equal(x.cpu().flatten(1, 2)[row, cells[level]].float())
            assert decoded.equal(all_decoded.flatten(1, 2)[row, cells[level]])
