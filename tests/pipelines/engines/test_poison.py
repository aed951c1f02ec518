"""A record that ends processes, with processes of this machine and with tasks of an array."""

import shlex
from pathlib import Path

import pytest

from stores import verify_store
from stores.format.row_table import UNDECODABLE
from tests.extract.extractor.extraction import skipped
from tests.pipelines.engines.poison import poison, write_site
from tests.pipelines.extraction.verb import TRAINING, result

BAD = "ADE_train_00000003"


@pytest.mark.ci
@pytest.mark.parametrize("engine", ["--devices cpu:2", "--engine slurm --slurm.cluster local --parallel 2"])
def test_one_process_ends_and_another_skips_the_record(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
) -> None:
    pytest.importorskip("submitit")
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(write_site(site)))
    at = words.index("--device")
    words = [*words[:at], *words[at + 2 :], "--shard-rows", "1", "--batch-size", "1"]
    store = Path(result(capsys, "extract", *words, "--stop-after", "0s")[1]["store"])
    poison(site, store, BAD)
    logs = ["--slurm.logs", str(tmp_path / "logs")] if "slurm" in engine else []
    command = [*words, *shlex.split(engine), *logs]
    code, summary, _, err = result(capsys, "extract", *command)
    assert code == 1 and ("ended with -9" in err or " failed: " in err), err
    if summary["shards_left"] != 0:  # the other process had ended before
        code, summary, _, err = result(capsys, "extract", *command)
        assert (code, summary["shards_left"]) == (0, 0), err
    assert [(place, code) for place, (code, _) in skipped(store).items()] == [((BAD, 0), UNDECODABLE)]
    assert verify_store(store, full=True).ok and TRAINING == 6
