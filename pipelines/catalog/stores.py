"""The stores under a folder, and the one that matches a query.

Only plan.json is read, a small file; whether a store can be trusted is `open_store`'s business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipelines.errors import UsageError
from stores.errors import FIX_PLAN, FormatError, IntegrityError, NoSuchStore, RemoteError, StoreError
from stores.format.canonical_json import parse_canonical
from stores.remote.store_url import StoreUrl, store_path

# As in stores.format.manifest, which needs numpy: the parsing of a command line comes by here and must be
# quick.
PLAN, MANIFEST = "plan.json", "MANIFEST.json"
MAX_PLAN_BYTES = 1 << 20  # 1 MiB
_MOST_NAMES = 5  # of stores in an error
T = TypeVar("T")
TRAINING, TEST = "training", "test"


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundStore:
    """One store of the folder, by what its plan says."""

    path: Path
    dataset: str
    split: str
    model: str
    weights_sha256: str
    identity: Mapping[str, Any]
    levels: tuple[str, ...]
    purpose: str
    """training, or test for a store that holds the records' untouched targets."""
    complete: bool

    @property
    def has_truth(self) -> bool:
        """Not of a test split whose annotations are not published."""
        return bool(self.identity["dataset"].get("truth", True))


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreQuery:
    """Properties a store must have; None matches any."""

    purpose: str
    dataset: str | None = None
    split: str | None = None
    model: str | None = None
    weights_sha256: str | None = None
    levels: Sequence[str] | None = None
    description: str | None = None
    """Of own data: the file that `make extract` takes as its DATASET."""

    def fits(self, store: FoundStore) -> bool:
        """Whether `store` matches; it may hold more levels than asked for."""
        fields = ("purpose", "dataset", "split", "model", "weights_sha256")
        same = all(getattr(self, name) in (None, getattr(store, name)) for name in fields)
        return same and set(self.levels or ()) <= set(store.levels)

    def __str__(self) -> str:
        fields = ("dataset", "split", "model", "weights_sha256")
        wanted = [f"{name} {getattr(self, name)}" for name in fields if getattr(self, name)]
        if self.levels:
            wanted.append(f"levels {','.join(self.levels)}")
        return f"{self.purpose} store" + (f" of {', '.join(wanted)}" if wanted else "")

    @property
    def extract_command(self) -> str:
        """The command that makes such a store; <...> stands for what is not known."""
        split = f" SPLIT={self.split or '<test split>'}" if self.split or self.purpose == TEST else ""
        levels = f" LEVELS={','.join(self.levels)}" if self.levels else ""
        dataset, model = self.description or self.dataset or "<data set>", self.model or "<model>"
        return f"make extract DATASET={dataset} MODEL={model}{split}{levels}"


def stored_name(dataset: str) -> str:
    """The name that stores have of a data set given by name or, of own data, by its description file.

    Raises DatasetLayoutError for a description that cannot be used.
    """
    if not dataset.lower().endswith((".yaml", ".yml")):
        return dataset
    # Late: stores are found without the packages that data sets need.
    from extract.datasets.own.description_file import read_description

    return read_description(dataset).name


def description_file(dataset: Mapping[str, Any]) -> str | None:
    """What the description of own data is taken to be called, for advice; None of a data set with a name.

    Args: dataset: of a store's identity.
    """
    if "description" not in dataset:
        return None
    # Late: as in stored_name.
    from extract.datasets.own.ready_made_sets import ready_made_file

    name = str(dataset["name"])
    return f"{name}.yaml" if ready_made_file(name) is None else None


def describe_store(path: Path) -> FoundStore:
    """Data set, backbone and levels of a store.

    Raises NoSuchStore; FormatError for a bad plan, IntegrityError where a complete store has none.
    """
    if not (path / PLAN).is_file():
        if (path / MANIFEST).is_file():
            raise IntegrityError(f"{path}: {PLAN} is missing while {MANIFEST} is there; {FIX_PLAN}")
        raise NoSuchStore(
            _as_folder_of_stores(path)
            or f"{path} is not a store: {path / PLAN} does not exist; make one with `make extract`"
        )
    with (path / PLAN).open("rb") as file:
        content = parse_canonical(file.read(MAX_PLAN_BYTES), str(path / PLAN), FIX_PLAN)
    try:
        identity = dict(content["identity"])
        return FoundStore(
            path=path,
            dataset=str(identity["dataset"]["name"]),
            split=str(identity["dataset"]["split"]),
            model=str(identity["backbone"]["model"]),
            weights_sha256=str(identity["backbone"]["weights_sha256"]),
            identity=identity,
            levels=tuple(level["name"] for level in content["levels"]),
            purpose=TEST
            if any(t["name"].startswith("original_") for t in content["targets"])
            or identity["dataset"].get("truth") is False
            else TRAINING,
            complete=(path / MANIFEST).is_file(),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path / PLAN} is not the plan of a store: {error!r}; {FIX_PLAN}") from error


def list_stores(folder: Path) -> list[FoundStore]:
    """Every store directly under `folder`, by name; unreadable ones are omitted (`status` lists them)."""
    return list(_readable_stores(folder))


def _readable_stores(folder: Path) -> Iterator[FoundStore]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            yield describe_store(path)
        except RemoteError:  # says nothing about the store
            raise
        except StoreError:
            continue


def local_folder(stores: str) -> Path:
    """The folder passed as --stores, of this machine. Raises UsageError for a URL, and for a file."""
    if isinstance(store_path(stores), StoreUrl):
        raise UsageError(f"--stores {stores}: expected a folder of this machine, not a URL")
    if not existing_folder(Path(stores)).is_dir():
        raise UsageError(f"--stores {stores}: {existing_folder(Path(stores))} is a file, expected a folder")
    return Path(stores)


def require_on_disk(path: Path, what: str, instead: str) -> None:
    """Raises UsageError where a store is at a URL and `what`, such as a flag, works on folders alone.

    Args:
        instead: what to do, as a sentence's end.
    """
    if isinstance(path, StoreUrl):
        raise UsageError(f"{what} works on folders of this machine, and {path} is a URL: {instead}")


def stores_folder(stores: str) -> Path:
    """The folder passed as --stores, which may be a URL. Raises UsageError for a file."""
    place = store_path(stores)
    return place if isinstance(place, StoreUrl) else local_folder(stores)


def existing_folder(folder: Path) -> Path:
    """`folder`, or the nearest one above it that exists."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())


def stores_asked_for(store: str | None, stores: str) -> list[Path]:
    """The store passed, or all with a plan or a manifest under `stores`. Raises NoSuchStore for none."""
    folder = stores_folder(stores)
    if store is not None:
        place = store_path(store)
        if not any((place / name).is_file() for name in (PLAN, MANIFEST)):
            raise NoSuchStore(
                _as_folder_of_stores(place) or f"{store} is not a store; {_what_is_there(folder)}"
            )
        return [place]
    found = sorted({path.parent for name in (PLAN, MANIFEST) for path in folder.glob(f"*/{name}")})
    if not found:
        raise NoSuchStore(
            f"{folder} holds no store; pass --store or --stores, or make one with `make extract`"
        )
    return found


class DamagedStores(IntegrityError):
    """Some of the inspected stores cannot be read; carries the summary, including the others."""

    def __init__(self, summary: dict[str, Any]) -> None:
        self.summary = summary
        super().__init__("; ".join(f"{store}: {problem}" for store, problem in summary["damaged"].items()))


def look_at_each(paths: Sequence[Path], look: Callable[[Path], T]) -> tuple[list[T], dict[str, str]]:
    """The results of `look` for each store, and the errors of those that cannot be read: one damaged store
    must not hide the others."""
    found, damaged = [], {}
    for path in paths:
        try:
            found.append(look(path))
        except IntegrityError as error:
            damaged[str(path)] = str(error)
            print(f"{path}: DAMAGED: {error}")
    return found, damaged


def find_store(folder: Path, query: StoreQuery, *, unfinished: bool = False) -> FoundStore:
    """The only complete store under `folder` that matches; where there is none, with `unfinished` the only
    one that is still being extracted. Raises UsageError for none or several."""
    fitting = [store for store in list_stores(folder) if query.fits(store)]
    complete = _without_retried([store for store in fitting if store.complete])
    if len(complete) == 1:
        return complete[0]
    if complete:
        raise UsageError(
            f"{len(complete)} complete stores match; pass --store with one of:{_lines(complete)}"
        )
    if unfinished and len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(
            f"no complete {query} under {folder}; unfinished:{_lines(fitting)}\n"
            "repeat its `make extract` command, which continues where it stopped; or train from what is "
            "finished of one: --store <folder> --allow-partial"
        )
    raise UsageError(
        f"no {query} under {folder}; {_what_is_there(folder)}; make one with:\n  {query.extract_command}"
    )


def manifest_sha256(path: Path) -> str:
    """Of the store's manifest as it stands on the disk; whether it may be trusted is for `open_store`."""
    return hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()


def _without_retried(complete: list[FoundStore]) -> list[FoundStore]:
    """Without those whose skipped rows another one has tried again (`extract --retry-skipped`)."""
    retried = {store.identity["retry_of"] for store in complete if "retry_of" in store.identity}
    return [store for store in complete if not retried or manifest_sha256(store.path) not in retried]


def _as_folder_of_stores(path: Path) -> str:
    """Advice where a folder of stores was passed as a store; empty if it holds none."""
    inside = [plan.parent for plan in sorted(path.glob(f"*/{PLAN}"))]
    if not inside:
        return ""
    names = "".join(f"\n  {store}" for store in inside[:_MOST_NAMES])
    more = f"\n  and {len(inside) - _MOST_NAMES} more" if len(inside) > _MOST_NAMES else ""
    return f"{path} is a folder of stores: pass --stores {path}, or --store with one of:{names}{more}"


def _what_is_there(folder: Path) -> str:
    others = list_stores(folder)
    return f"stores in {folder}:{_lines(others)}" if others else f"{folder} holds no store"


def _lines(stores: Sequence[FoundStore]) -> str:
    return "".join(f"\n  {store.path}{'' if store.complete else ' (unfinished)'}" for store in stores)
