"""A record that ends the process which loads it, in every process that a test starts."""

from __future__ import annotations

from pathlib import Path

from extract.extractor.row_loader import ENDED_THE_PROCESS
from stores.format.bounded_files import StoreFolder
from stores.format.plan import ShardId
from stores.reading.committed_store import read_plan
from stores.work.attempts import MOST_DEATHS, Attempts, record_name, shard_attempts

SITE = """
import importlib.abc, importlib.util, os, pathlib, sys

MODULE, KEY = "extract.extractor.row_loader", pathlib.Path(__file__).with_name("poison.txt")

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def execute_and_change(module):
            execute(module)
            load = module.RowLoader._load
            def load_or_end(self, rows):
                if KEY.exists() and KEY.read_text() in [self._rows.keys[row] for row in rows]:
                    os.kill(os.getpid(), 9)
                return load(self, rows)
            module.RowLoader._load = load_or_end
        spec.loader.exec_module = execute_and_change
        return spec

sys.meta_path.insert(0, Finder())
"""


def write_site(folder: Path) -> Path:
    """A folder for PYTHONPATH: whatever Python starts with it notices the file poison.txt."""
    (folder / "sitecustomize.py").write_text(SITE)
    return folder


def poison(site: Path, store: Path, key: str) -> None:
    """The record ends processes from now on, as it has done before: the next process dies with its shard,
    whose records are then tried one by one, and one more death there skips the record."""
    (site / "poison.txt").write_text(key)
    attempts, plan = Attempts(store), read_plan(StoreFolder(store), None)
    row = plan.bin_rows[0].tolist().index(list(plan.rows.keys).index(key))
    shard = plan.shard_name(ShardId(0, row // plan.bins[0].shard_rows))
    attempts.add(shard_attempts(shard), "its process ended", times=MOST_DEATHS - 1)
    attempts.add(record_name(key), ENDED_THE_PROCESS, times=MOST_DEATHS - 1)
