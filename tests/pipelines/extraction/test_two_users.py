"""Two users of one folder: who may write continues a store, who may only read reads and verifies it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pipelines.__main__ import main
from stores.checks.verify import gc_orphans, store_status, verify_store
from stores.writing.writer import StoreWriter
from tests.extract.datasets.made_ade20k import write_folder
from tests.faults.made_stores import MadeRows, extract, fill_shard, small_plan
from tests.faults.outcomes import assert_reads_back, store_files
from tests.pipelines.extraction.users import LAB, STRANGERS, acting_as, only_root, shared_folder
from tests.pipelines.extraction.verb import result

ROWS = MadeRows(small_plan())
ANN, BEN, CARL = 11111, 22222, 33333
pytestmark = only_root


def begin(folder: Path) -> Path:
    """One shard, and the claim and partial files of a second one whose process is gone."""
    writer = StoreWriter.open_or_create(folder, ROWS.plan)
    first, second, _ = writer.pending()
    fill_shard(writer, first, ROWS)
    writer.open_shard(second)
    return writer.path


def test_a_second_user_of_the_group_continues_a_store() -> None:
    """The folder belongs to the group and hands it on (chmod 2775), and both have umask 002."""
    with shared_folder(LAB, 0o2775) as folder:
        with acting_as(ANN, LAB, 0o002):
            path = begin(folder)
        assert {file.stat().st_gid for file in path.rglob("*")} == {LAB}
        modes = {stat.S_IMODE(file.stat().st_mode) for file in path.rglob("*") if file.is_file()}
        assert modes == {0o664}
        with acting_as(BEN, LAB, 0o002):
            extract(folder, ROWS)
            gc_orphans(path, delete=True)
        owners = {file.stat().st_uid for file in path.rglob("*") if file.is_file()}
        assert owners == {ANN, BEN}
        assert_reads_back(path, ROWS)
        assert verify_store(path, full=True).ok


def test_without_the_group_s_permission_the_error_names_the_file_and_nothing_is_lost() -> None:
    """The usual umask 022: folders that Ann has made are hers."""
    with shared_folder(LAB, 0o2775) as folder:
        with acting_as(ANN, LAB, 0o022):
            path = begin(folder)
        before = store_files(path)
        with acting_as(BEN, LAB, 0o022), pytest.raises(PermissionError, match=path.name):
            extract(folder, ROWS)
        assert store_files(path) == before
        with acting_as(ANN, LAB, 0o022):
            extract(folder, ROWS)
        assert_reads_back(path, ROWS)


def test_who_may_only_read_verifies_and_reads() -> None:
    with shared_folder(LAB, 0o2775) as folder:
        with acting_as(ANN, LAB, 0o002):
            unfinished = store_status(begin(folder))
        path = folder / ROWS.plan.folder_name
        with acting_as(CARL, STRANGERS):
            assert store_status(path) == unfinished
            assert not verify_store(path).ok
            assert len(gc_orphans(path)) > 0
            with pytest.raises(PermissionError):
                gc_orphans(path, delete=True)
        with acting_as(ANN, LAB, 0o002):
            extract(folder, ROWS)
            gc_orphans(path, delete=True)
        before = store_files(path)
        with acting_as(CARL, STRANGERS):
            assert verify_store(path, full=True).ok and gc_orphans(path) == []
            assert_reads_back(path, ROWS)
            extract(folder, ROWS)  # there is nothing to write
        assert store_files(path) == before


@pytest.mark.ci
def test_who_may_only_read_trains_evaluates_and_has_nothing_to_extract(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with shared_folder(LAB, 0o755) as features:
        public = features.parent
        data = write_folder(public / "data", training=6, validation=3)
        model = f"--model swinv2-nano --weights random:0 --device cpu --workers 2 --stores {features}"
        verbs = [
            f"extract --dataset ade20k --data {data} --crop-size 64 {model}",
            f"extract --dataset ade20k --data {data} --short-side 64 --split validation {model}",
            f"train-head --head linear --stores {features} --device cpu --max-steps 2 --batch-size 2"
            " --run RUN",
            "evaluate --run RUN",
            f"verify --stores {features} --full",
            f"status --stores {features}",
        ]
        for name, user, group in (("root", 0, 0), ("carl", CARL, STRANGERS)):
            runs = public / name
            runs.mkdir()
            os.chown(runs, user, group)
            monkeypatch.chdir(runs)
            monkeypatch.setenv("PERMAFROST_CACHE", str(runs / "cache"))
            with acting_as(user, group):
                for verb in verbs:
                    code, summary, out, err = result(capsys, *verb.replace("RUN", str(runs / "run")).split())
                    assert code == 0, (name, verb, err)
                    if verb.startswith("extract") and user:
                        assert summary["done_before"] and "is complete: nothing to do" in out
        assert main(["report", str(public / "root" / "run"), str(public / "carl" / "run")]) == 0
