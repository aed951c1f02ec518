"""Verbs that work on folders alone refuse a URL by name, before anything is listed or written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.__main__ import main
from tests.stores.remote.static_server import serving

STORES = Path(__file__).parents[2] / "golden/run-linear/stores"


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words, "--json"]) == 2
    error: str = json.loads(capsys.readouterr().out.splitlines()[-1])["error"]
    return error


@pytest.mark.parametrize("flags", [(), ("--delete",)])
def test_gc(url: str, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]) -> None:
    error = refused(capsys, "gc", "--store", url, *flags)
    assert error.startswith(f"gc works on folders of this machine, and {url} is a URL")
    assert "repeat its `extract` command" in error and "aws s3 rm" in error


@pytest.mark.parametrize("flags", [(), ("--yes",)])
def test_repair(url: str, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]) -> None:
    assert main(["verify", "--store", url]) == 0
    capsys.readouterr()
    error = refused(capsys, "verify", "--store", url, "--repair", *flags)
    assert error.startswith(f"--repair works on folders of this machine, and {url} is a URL")
    assert "`pull`" in error and "`push`" in error


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(capsys, "doctor", "--stores", "s3://bucket/features")
    assert error.startswith("doctor works on folders") and "s3://bucket/features" in error
    assert "`plan`" in error


def test_convert(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "`pull` the store" in refused(capsys, "convert", "--store", url, "--codec", "q2")


@pytest.mark.parametrize(
    "words",
    [
        ("info", "--store", "x", "--out", "s3://bucket/page.html"),
        ("train-head", "--head", "linear", "--run", "https://host/run"),
        ("report", "--run", "runs/a,gs://bucket/b"),
    ],
)
def test_paths_that_are_no_stores(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected a path of this machine" in refused(capsys, *words)


@pytest.mark.parametrize("text", ["hf:lab/features", "hf://lab/features", "HF:lab/features"])
def test_the_hub(text: str, capsys: pytest.CaptureFixture[str], local: Path) -> None:
    for words in (("info", "--store", text), ("push", "--store", str(local), "--to", text)):
        error = refused(capsys, *words)
        assert "`hf download lab/features --repo-type dataset" in error and "`hf upload" in error


def test_a_page_of_a_store_on_a_web_server(tmp_path: Path) -> None:
    """One that is not refused."""
    (store,) = STORES.glob("k400-val-*")
    page = tmp_path / "page.html"
    with serving(STORES) as server:
        url = f"{server.url}/{store.name}"
        assert main(["info", "--store", url, "--out", str(page)]) == 0
    assert url in page.read_text() and "on a web server" in page.read_text()


@pytest.mark.parametrize("engine", ["local", "slurm", "ray"])
def test_retry_skipped(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--dataset", "ade20k", "--model", "swinv2-t", "--stores", "s3://bucket/f", "--engine", engine)
    error = refused(capsys, "extract", *words, "--retry-skipped")
    assert error.startswith("--retry-skipped works on folders") and "`pull`" in error and "`push`" in error
