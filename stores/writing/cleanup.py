"""What a commit leaves to delete: spools, and receipts that it packed into one file.

Deleted after the manifest, and by whoever finishes the store next where the committer was killed. Nothing of
it is part of the store.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

from stores.codecs.contract import states_sha256
from stores.format.manifest import Manifest
from stores.format.plan import StorePlan
from stores.shards.disk import Files
from stores.shards.receipts import receipt_path
from stores.shards.spool import spool_path


def remove_spooled(files: Files, root: Path, plan: StorePlan, manifest: Manifest) -> None:
    """Deletes the spools and the single receipts of a committed store. May be repeated.

    The lowest generation of a receipt goes first: a higher one is never taken for the first.
    """
    paths = []
    for shard in plan.shards():
        generations = range(manifest.generations.get(shard, 0) + 1)
        paths += [root / receipt_path(plan, shard, generation) for generation in generations]
        paths.append(root / spool_path(plan.shard_name(shard)))
    files.unlink_each(paths)


def remove_other_states(root: Path, plan: StorePlan) -> None:
    """Deletes what creators that were killed before they wrote plan.json had fitted a codec to."""
    if plan.codec_state is None:
        return
    kept = states_sha256(plan.codec_state)[:16]
    with contextlib.suppress(OSError):  # what is left is no part of the store
        for folder in (root / "codec").iterdir():
            if re.fullmatch("[0-9a-f]{16}", folder.name) and folder.name != kept:
                shutil.rmtree(folder)
