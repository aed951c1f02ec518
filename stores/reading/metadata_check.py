"""Every zarr.json of a store, compared with the manifest and with the array that follows from the plan.

Our reader takes shapes and codecs from the plan, other Zarr readers take them from zarr.json: where the two
differ, one of them would return wrong numbers.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from stores.errors import IntegrityError
from stores.format.arrays import metadata_files
from stores.format.bounded_files import StoreFolder
from stores.format.canonical_json import sha256_hex
from stores.format.manifest import PLAN_NAME
from stores.format.plan import StorePlan

MAX_METADATA_BYTES = 16 << 20  # 16 MiB: no zarr.json comes near it
_FEW = 64
_THREADS = 8
_FREE = ("attributes", "dimension_names", "consolidated_metadata")
"""Fields that do not change how bytes are decoded: a newer writer may say more in them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MetadataProblem:
    """What is wrong with one zarr.json."""

    what: str
    is_bound: bool
    """Whether the manifest holds the file's digest: both were changed on purpose, or written by another
    program."""


def metadata_problems(
    folder: StoreFolder, plan: StorePlan, bound: Mapping[str, str]
) -> Iterator[MetadataProblem]:
    """Compares every zarr.json, file by file.

    Args:
        folder: of the store.
        plan: that the manifest binds.
        bound: the manifest's sha256 by path.
    """
    expected = metadata_files(plan)
    for (path, content), data in zip(expected.items(), _read_each(folder, expected), strict=True):
        if isinstance(data, IntegrityError):
            yield MetadataProblem(what=str(data), is_bound=False)
            continue
        if sha256_hex(data) != bound.get(path):
            what = (
                "was changed: its sha256 is not the manifest's" if path in bound else "is not in the manifest"
            )
            yield MetadataProblem(what=f"{folder.path}: {path} {what}", is_bound=False)
        elif (difference := _difference(_parsed(data), content, _below(path, expected))) is not None:
            what = f"{folder.path}: {path} contradicts {PLAN_NAME}: {difference}"
            yield MetadataProblem(what=what, is_bound=True)


def _read_each(folder: StoreFolder, paths: Collection[str]) -> Iterator[bytes | IntegrityError]:
    """The files in their order; many at once where a store has many, since network disks answer slowly."""

    def read(path: str) -> bytes | IntegrityError:
        try:
            return folder.read(path, limit_bytes=MAX_METADATA_BYTES)
        except IntegrityError as error:
            return error

    if len(paths) < _FEW and not folder.is_remote:
        yield from map(read, paths)
        return
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="store-metadata") as pool:
        ordered = list(paths)
        for start in range(0, len(ordered), _FEW):  # a bound on what waits in memory
            yield from pool.map(read, ordered[start : start + _FEW])


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _below(path: str, files: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """The zarr.json files below the group of this one, by path from there."""
    folder = path.removesuffix("zarr.json")
    if path not in ("zarr.json", "rows/zarr.json"):  # the others repeat no metadata
        return {}
    return {other.removeprefix(folder): files[other] for other in files if other.startswith(folder)}


def _difference(
    found: Any, expected: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """The first difference that changes what another reader returns; None for none.

    Args:
        found: the parsed zarr.json.
        expected: its content by the plan.
        files: the same of every zarr.json below it, for consolidated metadata.
    """
    if found == expected:
        return None
    if not isinstance(found, dict):
        return "it is not a JSON object"
    for field in sorted({*found, *expected} - {*_FREE}):
        if found.get(field) != expected.get(field):
            return f"{field} is {_short(found.get(field))}, expected {_short(expected.get(field))}"
    attributes = found.get("attributes")
    for name, value in expected["attributes"].items():
        if name == "decode":  # a text for people, which may be worded otherwise by another release
            continue
        if not isinstance(attributes, dict) or attributes.get(name) != value:
            return f"attribute {name} differs"
    consolidated = found.get("consolidated_metadata")
    return None if consolidated is None else _consolidated_difference(consolidated, files)


def _consolidated_difference(consolidated: Any, files: Mapping[str, Mapping[str, Any]]) -> str | None:
    """As `_difference`, of the copies of all metadata in the root's zarr.json."""
    copies = consolidated.get("metadata") if isinstance(consolidated, dict) else None
    if not isinstance(copies, dict):
        return "its consolidated metadata are not a JSON object"
    for path, copy in copies.items():
        expected = files.get(f"{path}/zarr.json")
        nested = isinstance(copy, dict) and copy.get("consolidated_metadata") is not None
        difference = "unknown" if expected is None or nested else _difference(copy, expected, {})
        if difference is not None:
            return f"consolidated metadata of {path[:200]!r}: {difference}"
    return None


def _short(value: object) -> str:
    return json.dumps(value)[:200]
