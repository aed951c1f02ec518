"""Stores that differ from the one asked for in the resize of images alone are named, with the flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.catalog.choose_backbone import of_other_resizes
from stores import open_store
from tests.pipelines.extracted import write_coloured_data
from tests.pipelines.extraction.verb import result

SMALL = {"embed_dim": "24", "depth": "2", "num_heads": "3", "img_size": "64"}
NEW, OLD = "this run begins a new store", "has the same views of images resized by bilinear interpolation"


def test_a_store_of_another_interpolation_is_named_and_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """timm records bicubic for this model; earlier releases resized as the recipe does, bilinear."""
    data, stores = write_coloured_data(tmp_path, training=4, validation=1), tmp_path / "features"
    words = ["--dataset", "ade20k", "--data", str(data), "--model", "timm:vit_tiny_patch16_224"]
    words += [word for name, value in SMALL.items() for word in (f"--model-args.{name}", value)]
    words += ["--weights", "random:0", "--stores", str(stores), "--crop-size", "64", "--levels", "b2n"]
    words += ["--device", "cpu", "--workers", "1", "--shard-rows", "2", "--mean", "0.5,0.5,0.5"]
    words += ["--std", "0.5,0.5,0.5"]
    bilinear = [*words, "--interpolation", "bilinear"]
    code, begun, _, _ = result(capsys, "extract", *bilinear, "--max-shards", "1")
    assert code == 0 and begun["shards_left"] and NEW not in caplog.text

    _, other, _, _ = result(capsys, "extract", *words)
    line = f"{begun['store']} {OLD} (an earlier release, or a flag): --interpolation bilinear continues it"
    assert f"{line}; {NEW}" in caplog.text
    assert other["store"] != begun["store"] and other["rows_written"] == 4

    caplog.clear()
    _, again, _, _ = result(capsys, "extract", *bilinear)
    assert again["store"] == begun["store"] and begun["rows_written"] + again["rows_written"] == 4
    assert NEW not in caplog.text, "it was asked for, and continued"

    with open_store(other["store"]) as store:
        asked = store.identity
    ((path, _, flags),) = of_other_resizes(stores, asked, interpolation_given=False)
    assert (str(path), flags) == (begun["store"], "--interpolation bilinear")
    assert not of_other_resizes(stores, asked, interpolation_given=True), "bicubic was asked for"
    replay = {**asked["views"]["replay"], "revision": 3}
    later = {**asked, "views": {**asked["views"], "replay": replay}}
    found = {flags for _, _, flags in of_other_resizes(stores, later, interpolation_given=False)}
    assert found == {"--view-revision 2", "--view-revision 2 --interpolation bilinear"}
    assert not of_other_resizes(stores, {**asked, "codec": "other"}, interpolation_given=False)
