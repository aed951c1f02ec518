"""A backbone alone: as many batches as a store takes, with the codec and the way to the host, to no disk."""

from __future__ import annotations

from extract.backbones.frozen import FrozenBackbone
from extract.extractor.codec_error import sample_cells
from extract.extractor.encode_batch import assemble, encode_batch, view_shape
from extract.extractor.stage_times import noise_row
from stores.format.plan import ShardId, StorePlan


def forward_all(backbone: FrozenBackbone, plan: StorePlan) -> None:
    """As many batches as the plan has, of noise. Returns when the last one is in host memory."""
    b, shape = plan.bins[0], view_shape(plan, 0)
    rows, last = [noise_row(shape)] * (b.batch_rows or 1), None
    sampled = sample_cells(plan, ShardId(0, 0), range(len(rows)))
    for _ in range(-(-b.rows // len(rows))):
        encoded = encode_batch(backbone, plan, assemble(rows, shape, sampled, backbone.device))
        if last is not None:
            last.wait()
        last = encoded
    if last is not None:
        last.wait()
