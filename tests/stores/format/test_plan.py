"""The plan: geometry that covers every row once; contradictions refused with an error that names them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.errors import FormatError, PlanError
from stores.format.canonical_json import canonical_json, diff_identity, identity_digest, parse_canonical
from stores.format.plan import Bin, DenseTarget, RaggedTarget, StorePlan, feature_row_bytes, shard_rows_for
from stores.format.row_table import RowTable
from stores.pyramid import Level, PyramidSpec
from tests.faults.made_stores import MadeRows, extract

SWINV2_B = PyramidSpec(
    tuple(Level(name=f"p{s + 1}", stride_px=2 << s, channels=64 << s, stage=s) for s in (1, 2, 3, 4))
)


def table(rows, **changed):
    padded = np.full((rows, 2), 64)
    fields = {
        "keys": tuple(f"r{i}" for i in range(rows)),
        "view": np.zeros(rows),
        "params": np.zeros((rows, 0)),
        "bin": np.zeros(rows),
        "padded_hw": padded,
        "valid_hw": padded,
        "original_hw": padded,
    }
    return RowTable(**{**fields, **changed})


def plan_of(count, shard_rows, **changed):
    fields = {
        "name": "made-training-nano-int8",
        "identity": {"a": 1},
        "pyramid": SWINV2_B,
        "codec": "int8",
        "codec_settings": {},
        "bins": (Bin(height_px=64, width_px=64, rows=count, shard_rows=shard_rows),),
        "targets": (),
        "view_params": (),
        "rows": table(count),
    }
    return StorePlan(**{**fields, **changed})


@given(st.integers(1, 1 << 31), st.integers(1, 1 << 20))
def test_shard_rows_are_the_largest_power_of_two_allowed(row_bytes, rows):
    s = shard_rows_for(row_bytes, rows)

    def allowed(n):
        return n <= 1024 and n * row_bytes <= 512 << 20 and n <= rows // 8

    assert s & (s - 1) == 0 and (s == 1 or allowed(s)) and not allowed(2 * s)


def test_shard_rows_of_swinv2_b_at_512_px():
    largest = max(feature_row_bytes(SWINV2_B, "int8", 512, 512).values())
    assert largest == 128 * 128 * 128 and shard_rows_for(largest, 20210) == 256
    assert feature_row_bytes(SWINV2_B, "int4", 512, 512)["p2"] == 128 * 128 * (64 + 4)
    assert feature_row_bytes(SWINV2_B, "float16", 512, 512, frames=3)["p5"] == 16 * 16 * 1024 * 2 * 3


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 3))
def test_shards_cover_every_planned_row_once(bin_of, log_s):
    used = sorted(set(bin_of))
    bin_of = np.array([used.index(b) for b in bin_of])
    sizes = np.array([(32 * (i + 1), 64) for i in range(len(used))])
    rows = table(len(bin_of), bin=bin_of, padded_hw=sizes[bin_of], valid_hw=sizes[bin_of])
    bins = tuple(
        Bin(height_px=int(h), width_px=int(w), rows=int((bin_of == i).sum()), shard_rows=1 << log_s)
        for i, (h, w) in enumerate(sizes)
    )
    plan = plan_of(1, 1, bins=bins, rows=rows)
    seen = [plan.global_row(shard.bin, local) for shard in plan.shards() for local in plan.shard_rows(shard)]
    assert sorted(seen) == list(range(len(bin_of)))
    assert all(bin_of[plan.global_row(s.bin, r)] == s.bin for s in plan.shards() for r in plan.shard_rows(s))
    with pytest.raises(PlanError, match="no shard"):
        plan.shard_rows(replace(plan.shards()[-1], shard=99))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"keys": ("r0", "")}, "1 to 4096 bytes"),
        ({"keys": ("r0", "r\0")}, "NUL"),
        ({"keys": ("r0", "r0")}, "same record under the same view"),
        ({"view": np.array([0, -1])}, "negative"),
        ({"view": np.zeros(3)}, r"rows.view has shape \(3,\)"),
        ({"valid_hw": np.full((2, 2), 65)}, "valid size"),
        ({"original_hw": np.zeros((2, 2))}, "original size"),
    ],
)
def test_row_tables_that_contradict_themselves(changed, message):
    with pytest.raises(PlanError, match=message):
        table(2, **changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "../evil"}, "store name"),
        ({"name": "Upper"}, "store name"),
        ({"codec": "gzip"}, "float16, int8, q2, q5"),
        ({"codec_settings": {"level": 1}}, "no settings"),
        ({"frames": 0}, "frames"),
        ({"bins": ()}, "0 bins"),
        ({"bins": (Bin(height_px=64, width_px=64, rows=3, shard_rows=1),)}, r"counts \[2\]"),
        ({"bins": (Bin(height_px=64, width_px=96, rows=2, shard_rows=1),)}, "padded size"),
        ({"view_params": ("scale",)}, "0 columns for 1 names"),
        ({"targets": (DenseTarget("a", "uint8", ()), DenseTarget("a", "int8", ()))}, "repeated names"),
        ({"targets": (DenseTarget("a", "float64", (1 << 30,)),)}, "exceeds"),
    ],
)
def test_plans_that_contradict_themselves(changed, message):
    with pytest.raises(PlanError, match=message):
        plan_of(2, 1, **changed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DenseTarget("Labels", "uint8", ()), "target name"),
        (lambda: DenseTarget("labels_crc", "uint8", ()), "target name"),
        (lambda: DenseTarget("labels", "object", ()), "dtype"),
        (lambda: DenseTarget("labels", "uint8", ("z",)), "size 'z'"),
        (lambda: DenseTarget("labels", "uint8", (-1,)), "below 1"),
        (lambda: DenseTarget("labels", "uint8", (1 << 60,)), "size"),
        (lambda: RaggedTarget("boxes", "float32", (-1, -1), 16), "more than one -1"),
        (lambda: RaggedTarget("boxes", "float32", (-1, 4), 0), "cap_bytes"),
        (lambda: Bin(height_px=64, width_px=64, rows=1, shard_rows=3), "power of two"),
        (lambda: Bin(height_px=64, width_px=64, rows=1, shard_rows=1 << 17), "power of two"),
        (lambda: Bin(height_px=0, width_px=64, rows=1, shard_rows=1), "0 px"),
        (lambda: Bin(height_px=64, width_px=64, rows=0, shard_rows=1), "0 rows"),
        (lambda: Bin(height_px=64, width_px=64, rows=1, shard_rows=1, batch_rows=0), "batch_rows"),
    ],
)
def test_values_out_of_range(make, message):
    with pytest.raises(PlanError, match=message):
        make()


def test_ragged_shapes():
    boxes = RaggedTarget("boxes", "float32", (-1, 4), 1 << 10)
    assert boxes.row_shape((5, 5), 48) == (3, 4) and boxes.row_shape((5, 5), 0) == (0, 4)
    labels = RaggedTarget("labels", "uint16", ("original_y", "original_x"), 1 << 10)
    assert labels.row_shape((5, 7), 70) == (5, 7) and labels.planned_bytes((5, 7)) == 70
    for target, stored in ((boxes, 47), (boxes, 44), (labels, 72)):
        with pytest.raises(PlanError, match="do not fill"):
            target.row_shape((5, 7), stored)


def test_identity_is_its_content():
    a = {"views": {"seed": 1, "count": 2}, "levels": ("p4", "p5"), "mean": 0.1}
    b = {"mean": 0.1, "levels": ["p4", "p5"], "views": {"count": 2, "seed": 1}}
    assert identity_digest(a) == identity_digest(b) and diff_identity(a, b) == []
    other = {**b, "views": {"count": 2, "seed": 3}, "extra": None}
    assert diff_identity(a, other) == [("extra", None, None), ("views.seed", 1, 3)]
    assert plan_of(1, 1, identity=a).folder_name == f"made-training-nano-int8-{identity_digest(a)[:8]}"


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}',
        b'{"a": 1}',
        b'{"b":1,"a":1}',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' * 40 + b"1" + b"}" * 40,
        b"[" * 100_000,
        b"[1]",
        b"\xff",
        b"",
    ],
)
def test_text_that_is_not_canonical_json_is_refused(text):
    with pytest.raises(FormatError):
        parse_canonical(text, "the file")


def test_canonical_json_round_trips():
    value = {"z": [1, 2.5, None, True, "é\n"], "a": {"b": -0.0}}
    assert canonical_json(parse_canonical(canonical_json(value), "it")) == canonical_json(value)


@pytest.mark.parametrize("codec_name", ["int8", "float16", "int4"])
def test_total_bytes_are_within_a_percent_for_features(tmp_path, codec_name):
    plan = plan_of(48, 4, codec=codec_name)
    rows = MadeRows(plan, skipped=frozenset())
    extract(tmp_path, rows)
    stored = sum(p.stat().st_size for p in (tmp_path / plan.folder_name).rglob("*") if p.is_file())
    assert abs(plan.total_bytes - stored) < 0.01 * stored, (plan.total_bytes, stored)


def test_wide_shards_are_a_required_feature():
    """Readers of earlier versions refuse shards of more than 1024 rows, and so the store by its feature."""
    wide = (Bin(height_px=64, width_px=64, rows=2, shard_rows=2048),)
    with pytest.raises(PlanError, match=r"shard_rows 2048, more than 1024 need .* feature wide-shards"):
        plan_of(2, 1, bins=wide)
    assert plan_of(2, 1, bins=wide, required_features=("wide-shards",)).bins == wide
    assert shard_rows_for(2048, 1 << 21, 1 << 16) == 1 << 16 and shard_rows_for(2048, 1 << 21) == 1024
