"""Verbs that work on folders alone refuse a URL by name, before anything is listed or written."""

from __future__ import annotations

import json

import pytest

from pipelines.__main__ import main


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


@pytest.mark.parametrize("engine", ["local", "slurm", "ray"])
def test_retry_skipped(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--dataset", "ade20k", "--model", "swinv2-t", "--stores", "s3://bucket/f", "--engine", engine)
    error = refused(capsys, "extract", *words, "--retry-skipped")
    assert error.startswith("--retry-skipped works on folders") and "`pull`" in error and "`push`" in error
