"""`plan` for stores in object storage: what is measured and printed, and that nothing is left there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.forecast import caching_advice
from tests.extract.datasets.made_ade20k import write_folder
from tests.stores.remote.s3_servers import BUCKET, environment, keys, proxy_without_conditions, s3_server

pytestmark = pytest.mark.ci


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    pytest.importorskip("ministack")
    with s3_server("ministack") as found:
        yield found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), training=16, validation=4)


@pytest.fixture
def words(endpoint: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PERMAFROST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(caching_advice, "head_step_seconds", lambda *_: 0.01)
    return shlex.split(
        f"plan --dataset ade20k --data {data} --model swinv2-nano --weights random:0 --crop-size 64"
        f" --stores s3://{BUCKET}/planned --device cpu --workers 2 --head linear --json"
    )


def test_rates_of_the_bucket_and_of_the_block_cache(
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main([*words, "--details"]) == 0
    out = capsys.readouterr().out
    summary = json.loads(out.splitlines()[-1])
    assert "measuring this machine: bucket" in caplog.messages
    assert summary["download_bytes_per_s"] > 0 and summary["extraction_requests"] > 0
    assert "  bucket    uploads " in out and "to be uploaded" in out
    assert "  cache     later epochs read the block cache: " in out
    assert "the store is read from the block cache in memory once the first epoch has filled it" in out
    assert "  writers   conditional puts keep several writers apart" in out
    text = out.rpartition("\n{")[0]
    assert "fsync" not in text and "inodes" not in text and "  free      no limit known on s3://" in text
    assert not keys("planned") and not keys(".permafrost")

    monkeypatch.setenv("PERMAFROST_CACHE_GB", "0")
    assert main([*words, "--details"]) == 0
    out = capsys.readouterr().out
    again = json.loads(out.splitlines()[-1])
    assert again["read_bytes_per_s"] == again["cached_bytes_per_s"] == summary["download_bytes_per_s"]
    assert "larger than the block cache: every epoch downloads" in out
    assert "the store is read from the bucket" in out


def test_a_server_without_conditions_is_said(
    words: list[str], endpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy_without_conditions(endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
        assert main(words) == 0
    out = capsys.readouterr().out
    assert "--single-writer" in next(line for line in out.splitlines() if line.startswith("  writers"))
    assert "  requests  extraction: about " in out and "  reading   all rows for the first time" in out
