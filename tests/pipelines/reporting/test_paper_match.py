"""The paper's row beside a run: for every preset, backbone and pretraining, and where there must be none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heads import head_names
from pipelines.reporting.paper_match import WINDOW_7, PaperMatch, match_cost, match_paper
from pipelines.reporting.paper_results import PaperRow, paper_head, paper_rows
from pipelines.reporting.pretraining import GivenPretraining, RunWeights, pretraining_names, run_weights
from tests.pipelines.reporting.made_runs import TASKS, class_names_of, made_record

TABLE = Path(__file__).with_name("paper_row_table.txt")
"""Every preset and pretraining that the paper has a row for, as Lin et al. (NeurIPS 2022) print it."""
MODELS = ("swinv2-t", "swinv2-s", "swinv2-b", "swinv2-l", "swinv2-g", "swinv2-nano")
SHARES = (1.0, 0.1, 0.01, 0.5)
HERE = Path()


def match(share: float = 1.0, pretraining: str | None = None, **record: Any) -> PaperMatch:
    made = made_record(**record)
    weights = run_weights(made, HERE, GivenPretraining())
    if pretraining is not None:
        weights = RunWeights(name="given", pretraining=pretraining, known=True)
    return match_paper(made, share, weights)


def printed(row: PaperRow) -> str:
    """
    frozen numbers / fine-tuned numbers, in the order of the paper
    """
    both = [" ".join(str(value) for of in scores.values() for value in of.values())
            for scores in (row.frozen, row.fine_tuned)]  # fmt: skip
    return f"{both[0]} / {both[1] or '-'} (table {row.table})"


@pytest.mark.ci
def test_row_of_every_preset_and_pretraining() -> None:
    """The whole table, so that a row beside a run that it is not of shows up as a line too many."""
    lines = []
    names = {dataset: class_names_of(dataset) for dataset in TASKS}
    for dataset, task in TASKS.items():
        for head in head_names(task):
            for model in MODELS:
                made = made_record(dataset=dataset, head=head, model=model, class_names=names[dataset])
                for pretraining in pretraining_names():
                    weights = RunWeights(name="given", pretraining=pretraining, known=True)
                    for share in SHARES:
                        found = match_paper(made, share, weights)
                        if found.rows:
                            part = "" if share == 1 else f", {100 * share:g} %"
                            lines.append(
                                f"{dataset} {head} {model} {pretraining}{part}: "
                                + "; ".join(map(printed, found.rows))
                            )
    text = "\n".join(lines) + "\n"
    print(text)
    assert text == TABLE.read_text(encoding="utf-8")


def test_every_row_is_found_by_a_run_of_its_own() -> None:
    for row in paper_rows():
        found = match(row.share, row.pretraining, dataset=row.dataset, head=row.head, model=row.model)
        assert found.row is not None
        numbers = [each.frozen for each in found.rows]
        assert row.frozen in numbers and (not row.frozen or set(row.fine_tuned) <= set(row.frozen)), row
        assert row.head in head_names(TASKS[row.dataset])
    keys = [
        (row.paper, row.table, row.dataset, row.head, row.model, row.pretraining, row.share)
        for row in paper_rows()
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("model", "weights", "expected"),
    [
        ("timm:vit_base_patch16_224.mae", "timm", "GLID table 1, MAE, timm:vit_base_patch16_224 MAE"),
        ("timm:vit_large_patch16_224.mae", "timm", "RevColV2 table 5, MAE-L, timm:vit_large_patch16_224 MAE"),
        ("timm:vit_base_patch16_224", "/w/mae_pretrain_vit_base.pth", "GLID table 1, MAE, "),
        ("timm:vit_base_patch16_224", "/w/ibot_vitb16.pth", "GLID table 1, iBOT, "),
        ("timm:vit_base_patch16_224", "/w/beit_base_patch16_224_pt22k.pth", "RevColV2 table 5, BEIT-B, "),
    ],
)
def test_linear_probes_of_imagenet(model: str, weights: str, expected: str) -> None:
    """Rows of other papers name them, and say nothing of SwinV2's windows."""
    found = match(dataset="in1k", head="linear", model=model, weights=weights)
    assert found.row is not None and found.row.describe().startswith(expected), found.reason
    assert not any("window 7" in note for note in found.notes)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("timm", 48.8),
        ("/w/swinv2_base_patch4_window12_192_22k.pth", 48.8),
        ("/w/swinv2_base_patch4_window8_256.pth", 43.9),
        ("/w/simmim_pretrain__swinv2_base__img192_window12__800ep.pth", 26.0),
        ("/w/esvit_swin_base.pth", 41.8),
        ("/w/simmim_finetune__swinv2_base__img224_window14.pth", None),
        ("/w/swinv2_base_patch4_window12to16_192to256_22kto1k_ft.pth", None),
        ("/w/checkpoint.pth", None),
        ("random:0", None),
        (None, None),
    ],
)
def test_pretraining_decides(weights: str | None, expected: float | None) -> None:
    found = match(weights=weights)
    assert (found.row.frozen["single"]["mIoU"] if found.row else None) == expected, found.reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "timm:efficientnet_b0.ra_in1k"}, "no backbone of the paper: timm:efficientnet_b0.ra_in1k"),
        ({"model": "timm:swin_base_patch4_window7_224.ms_in22k"}, "no backbone of the paper: timm:swin_base"),
        ({"args": {"depths": [2, 2, 6, 2]}}, "swinv2-b with depths=[2, 2, 6, 2]"),
        ({"class_names": list("abcde")}, "5 classes (paper: 150)"),
        ({"class_names": [f"class {n}" for n in range(150)]}, "150 classes of other names than the paper's"),
        (
            {"dataset": "k400", "head": "linear", "class_names": ["a", "b", "c", "d"], "records": 6},
            "4 classes (paper: 400)",
        ),
        ({"head": "linear"}, "no head of the paper: linear"),
        ({"settings": {"neck": "bifpn", "neck_depth": 5}}, "fpn with neck=bifpn, neck_depth=5"),
        ({"dataset": "coco", "head": "bifpn7"}, "no head of the paper: bifpn7"),
        (
            {"dataset": "coco", "head": "bifpn5", "model": "swinv2-t"},
            "not printed for bifpn5, swinv2-t SUP-1K",
        ),
    ],
)
def test_other_runs_have_no_row(changes: dict[str, Any], reason: str) -> None:
    found = match(**changes)
    assert found.rows == () and found.reason.startswith(reason), found


def test_nine_layers_are_swinv2_ts() -> None:
    found = match(dataset="coco", head="bifpn9", model="swinv2-t")
    assert found.row is not None and found.row.frozen["single"]["box AP"] == 49.6
    assert "nine BiFPN layers by section 5.2" in found.notes
    assert f"{WINDOW_7}; ours: 256 px, window 8" in found.notes


def test_htc_without_its_semantic_branch_says_so() -> None:
    found = match(pretraining="ext22K", dataset="coco", head="htc-nosem-bifpn5", model="swinv2-g",
                  args={"depths": [2, 2, 42, 4], "window_size": 32})  # fmt: skip
    assert found.row is not None and found.row.frozen["single"] == {"box AP": 57.9, "mask AP": 50.4}
    assert found.notes[0].endswith("this head has no semantic branch")
    assert "paper: ext22K weights, not public" in found.notes


def test_heads_of_earlier_defaults_say_so() -> None:
    """A cascade of a run without a revision has two fully connected layers; the row's has 4conv1fc."""
    found = match(dataset="coco", head="cascade-bifpn5", head_revision=1)
    assert "head settings of our own: box_head=2fc, border_anchors=True" in found.notes
    assert not any("of our own" in note for note in match(dataset="coco", head="cascade-bifpn5").notes)


def test_short_names_are_the_same_heads() -> None:
    assert paper_head("pixeldec6") == ("m2f-pd6-td9", "") and paper_head("fpn") == ("fpn", "")
    assert match(head="pixeldec6").rows == match(head="m2f-pd6-td9").rows != ()


def test_classes_are_compared_without_case_and_punctuation() -> None:
    names = [name.upper().replace(" ", "_") for name in reversed(class_names_of("k400"))]
    found = match(dataset="k400", head="linear", class_names=names)
    assert found.row is not None and found.row.frozen["4x3"]["top-1"] == 70.3


def test_costs_are_of_the_papers_classes() -> None:
    cost = match_cost(made_record(dataset="k400", model="swinv2-g"))
    assert cost is not None and cost.frozen == {"gb": 30.54, "seconds": 1.14}
    assert match_cost(made_record(dataset="k400", class_names=["a", "b"])) is None
