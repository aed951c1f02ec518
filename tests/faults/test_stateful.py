"""Any order of extractions, kills, damage, verification, repair and gc ends in the store of a clean run."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stores.checks.repair import carry_out, plan_repair
from stores.checks.verify import gc_orphans, store_status, verify_store
from stores.errors import StoreError
from stores.format.manifest import MANIFEST_NAME, PLAN_NAME
from stores.reading.reader import open_store
from stores.work.claims import Claims
from stores.writing.writer import StoreWriter
from tests.faults.conftest import MEMORY
from tests.faults.disks_without_links import WithoutLinks
from tests.faults.faulty_files import FaultyFiles, Killed, kills, kills_half_way
from tests.faults.made_stores import NEW_LAYOUT, ORIGINAL_LABELS, MadeRows, extract, fill_shard, small_plan
from tests.faults.outcomes import assert_equal_rows, assert_reads_back, read_row, store_files

PLANS = {
    "v1": MadeRows(small_plan(targets=(ORIGINAL_LABELS,))),
    "layout": MadeRows(small_plan(targets=(ORIGINAL_LABELS,), **NEW_LAYOUT)),
}
COPIES = {name: list(rows.copies().values()) for name, rows in PLANS.items()}
DAMAGES = ("flip", "cut", "empty", "remove")


class StoreMachine(RuleBasedStateMachine):
    """One store and whatever may happen to it."""

    def __init__(self) -> None:
        super().__init__()
        folder = MEMORY if MEMORY.is_dir() else None
        self.root = Path(tempfile.mkdtemp(dir=folder, prefix="stateful-"))
        self.may_be_damaged = False

    @initialize(layout=st.sampled_from(sorted(PLANS)))
    def plan(self, layout: str) -> None:
        self.layout, self.rows = layout, PLANS[layout]
        self.path = self.root / self.rows.plan.folder_name

    def is_begun(self) -> bool:
        return (self.path / PLAN_NAME).exists()

    def is_complete(self) -> bool:
        return (self.path / MANIFEST_NAME).exists()

    @rule(has_links=st.booleans())
    def extract(self, has_links: bool) -> None:
        extract(self.root, self.rows, None if has_links else WithoutLinks())
        assert self.is_complete() and not (self.path / "work" / "claims").exists()

    @rule()
    def extract_one_shard(self) -> None:
        writer = StoreWriter.open_or_create(self.root, self.rows.plan)
        for shard in writer.pending()[:1]:
            name = self.rows.plan.shard_name(shard)
            assert writer.claims.take(name)
            assert fill_shard(writer, shard, self.rows)
            writer.claims.release(name)

    @rule(at=st.integers(0, 250), half_way=st.booleans())
    def kill(self, at: int, half_way: bool) -> None:
        with contextlib.suppress(Killed):
            extract(self.root, self.rows, FaultyFiles({at: kills_half_way if half_way else kills}))

    @precondition(lambda self: self.is_begun())
    @rule(data=st.data(), how=st.sampled_from(DAMAGES))
    def damage(self, data: st.DataObject, how: str) -> None:
        """Bytes of a shard's file, wherever it is at the moment."""
        names = [name for name in sorted(store_files(self.path)) if is_data(name)]
        if not names:
            return
        path = self.path / data.draw(st.sampled_from(names))
        content = bytearray(path.read_bytes())
        if how == "remove":
            path.unlink()
        elif how == "empty":
            path.write_bytes(b"")
        elif content:
            at = data.draw(st.integers(0, len(content) - 1))
            content[at] ^= 1
            path.write_bytes(content[:at] if how == "cut" else content)
        self.may_be_damaged = True

    @precondition(lambda self: self.is_begun())
    @rule()
    def collect_garbage(self) -> None:
        gc_orphans(self.path, delete=True)
        assert gc_orphans(self.path) == []

    @precondition(lambda self: self.is_begun())
    @rule()
    def collect_garbage_beside_a_writer(self) -> None:
        """Which has a claim and has just begun its files."""
        writer = StoreWriter.open_or_create(self.root, self.rows.plan)
        for shard in writer.pending()[:1]:
            claims = Claims(self.path)
            assert claims.take(self.rows.plan.shard_name(shard))
            begun = writer.open_shard(shard)
            before = store_files(self.path).keys()
            gc_orphans(self.path, delete=True)
            lost = {name for name in before - store_files(self.path).keys() if begun._writer_id in name}
            begun.abort()
            claims.release_all()
            assert not lost

    @precondition(lambda self: self.is_begun())
    @rule()
    def verify_and_repair(self) -> None:
        report = verify_store(self.path, full=True)
        if self.is_complete() and not self.may_be_damaged:
            assert report.ok, report.problems
        carry_out(plan_repair(self.path, report))

    @precondition(lambda self: self.is_complete())
    @rule()
    def read(self) -> None:
        """Equal to what was written, or an error."""
        try:
            with open_store(self.path, threads=1) as store:
                assert len(store) == len(COPIES[self.layout])
                for row, wanted in enumerate(COPIES[self.layout]):
                    try:
                        found = read_row(store, row)
                    except StoreError:
                        assert self.may_be_damaged
                        continue
                    assert_equal_rows(found, wanted)
        except StoreError:
            assert self.may_be_damaged

    @invariant()
    def status_reports(self) -> None:
        if hasattr(self, "path") and self.is_begun():
            status = store_status(self.path)
            assert status.complete == self.is_complete() and len(status.missing) <= 3

    def teardown(self) -> None:
        try:
            if hasattr(self, "path"):
                self.settle()
        finally:
            shutil.rmtree(self.root, ignore_errors=True)

    def settle(self) -> None:
        """Extraction, verification and repair, as their advice has it, until nothing is wrong."""
        for _ in range(3):
            extract(self.root, self.rows)
            report = verify_store(self.path, full=True)
            if report.ok:
                break
            assert self.may_be_damaged
            repair = plan_repair(self.path, report)
            assert repair.files and not repair.left, report.problems
            carry_out(repair)
        assert report.ok, report.problems
        gc_orphans(self.path, delete=True)
        assert_reads_back(self.path, self.rows)
        assert not [name for name in store_files(self.path) if name.endswith(".partial") or "work" in name]


def is_data(name: str) -> bool:
    return name.startswith("bins/") and not name.endswith(("zarr.json", ".partial")) and "/crc/" not in name


@pytest.mark.parametrize("layout", sorted(PLANS))
def test_a_store_whose_every_shard_is_damaged_is_repaired(memory_path: Path, layout: str) -> None:
    """Nothing of it stays but its plan."""
    rows = PLANS[layout]
    extract(memory_path, rows)
    path = memory_path / rows.plan.folder_name
    for name in store_files(path):
        if is_data(name):
            (path / name).write_bytes(b"")
    carry_out(plan_repair(path, verify_store(path)))
    extract(memory_path, rows)
    assert verify_store(path, full=True).ok
    assert_reads_back(path, rows)


class TestAnyHistoryOfAStore(StoreMachine.TestCase):
    """Extraction, kills, damage, verification, repair and gc in drawn orders end in a clean run's store."""

    settings = settings(max_examples=8, stateful_step_count=12, deadline=None)


@pytest.mark.ci
class TestLongHistoriesOfAStore(StoreMachine.TestCase):
    """The same, more and longer ones."""

    # Without shrinking, which takes minutes: the steps that failed are printed as they were drawn.
    settings = settings(max_examples=60, stateful_step_count=20, deadline=None, phases=[Phase.generate])
