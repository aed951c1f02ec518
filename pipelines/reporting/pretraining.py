"""Weights of a run's backbone by name, and the pretraining they are of as the paper calls it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.catalog.known_weights import first_known_weights
from pipelines.errors import UsageError
from pipelines.reporting.paper_results import paper_rows
from pipelines.runs.run_folder import RunRecord
from stores.remote.store_url import store_path

_TAGS = {"ms_in1k": "SUP-1K", "ms_in22k": "SUP-22K", "mae": "MAE"}
"""Of timm's names of published weights, behind the dot; ms_in22k_ft_in1k was trained twice and is neither."""
_FILES = (
    (re.compile(r"(?!.*finetune).*simmim.*", re.IGNORECASE), "SimMIM-1K"),
    (re.compile(r"(?!.*finetune).*esvit.*", re.IGNORECASE), "EsViT-1K"),
    (re.compile(r"mae_pretrain_vit_.*"), "MAE"),
    (re.compile(r"(?!.*finetune).*ibot.*", re.IGNORECASE), "iBOT"),
    (re.compile(r"beit_(base|large)_patch16_224_pt22k\..+"), "BEiT"),
    (re.compile(r"swin(v2)?_(tiny|small|base|large)_patch4_window\d+_\d+_22k\..+"), "SUP-22K"),
    (re.compile(r"swin(v2)?_(tiny|small|base|large)_patch4_window\d+_\d+\..+"), "SUP-1K"),
)
"""Names under which the authors publish the files."""
_DIGEST = re.compile(r"[0-9a-f]{6,64}")
_SHOWN_DIGITS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class RunWeights:
    """Weights of a run's backbone."""

    name: str
    """timm's name, the file's name or random:SEED; of weights without a record the digest."""
    pretraining: str | None
    """As the paper calls it; None: another, none at all, or unknown."""
    known: bool
    """Whether a missing `pretraining` is certain."""
    note: str = ""
    """How the pretraining was found, where that is less than certain."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenPretraining:
    """What --pretraining gives."""

    default: str | None = None
    """Of runs whose weights are not known."""
    by_key: tuple[tuple[str, str | None], ...] = ()
    """Digest of weights (6 digits or more) or folder of a run, and its pretraining."""

    def of(self, record: RunRecord, folder: Path) -> tuple[bool, str | None]:
        """Whether the run is named, and its pretraining."""
        for key, name in self.by_key:
            is_digest = bool(_DIGEST.fullmatch(key)) and record.weights_sha256.startswith(key)
            if is_digest or Path(key).resolve() == folder.resolve():
                return True, name
        return False, None


def pretraining_names() -> tuple[str, ...]:
    """Every pretraining of the paper's tables."""
    return tuple(dict.fromkeys(row.pretraining for row in paper_rows()))


def given_pretraining(texts: Sequence[str]) -> GivenPretraining:
    """What --pretraining means: NAME, DIGEST=NAME or FOLDER=NAME; NAME of the paper's tables, or other.

    >>> given_pretraining(["simmim-1k", "0a1b2c3d=other"])
    GivenPretraining(default='SimMIM-1K', by_key=(('0a1b2c3d', None),))

    Raises UsageError for a name that the paper does not have, and for two names of all runs.
    """
    names: dict[str, str | None] = {name.lower(): name for name in pretraining_names()}
    names["other"] = None
    default: list[str | None] = []
    by_key = []
    for text in texts:
        key, has_key, name = text.rpartition("=")
        if name.strip().lower() not in names:
            raise UsageError(
                f"--pretraining {text}: expected {', '.join(pretraining_names())} or other, by itself or as "
                "DIGEST=NAME or RUN=NAME"
            )
        found = names[name.strip().lower()]
        if has_key:
            by_key.append((key.strip(), found))
        else:
            default.append(found)
    if len(default) > 1:
        raise UsageError(f"--pretraining {','.join(texts)}: expected one name for all runs, or DIGEST=NAME")
    return GivenPretraining(default=default[0] if default else None, by_key=tuple(by_key))


def run_weights(record: RunRecord, folder: Path, given: GivenPretraining) -> RunWeights:
    """The weights of a run: what --pretraining says of them, else what their record says.

    Random weights and those of timm are known; a name for all runs does not change them.
    """
    found = _recorded(record)
    is_named, name = given.of(record, folder)
    if is_named:
        return RunWeights(name=found.name, pretraining=name, known=True, note="pretraining as given")
    if given.default is not None and (not found.known or found.note):
        return RunWeights(name=found.name, pretraining=given.default, known=True, note="pretraining as given")
    if given.default not in (None, found.pretraining):
        key = record.weights_sha256[:_SHOWN_DIGITS]
        note = f"--pretraining {given.default} is for unknown weights; for {found.name} pass {key}=NAME"
        return dataclasses.replace(found, note=note)
    return found


def _recorded(record: RunRecord) -> RunWeights:
    source = record.weights or _beside_the_stores(record)
    if source is None and not record.stores:
        source = "timm"  # the default of an online run
    if source is None:
        return RunWeights(name=record.weights_sha256[:_SHOWN_DIGITS], pretraining=None, known=False)
    if source.startswith("random:"):
        return RunWeights(name=source, pretraining=None, known=True)
    if source == "timm":
        if record.model == "swinv2-nano":
            return RunWeights(name="bundled", pretraining=None, known=True)
        published = str(record.identity["backbone"].get("timm_id", record.model))
        return RunWeights(name=published, pretraining=_TAGS.get(published.rpartition(".")[2]), known=True)
    file = Path(source).name
    for pattern, name in _FILES:
        if pattern.fullmatch(file):
            return RunWeights(
                name=file, pretraining=name, known=True, note=f"{name} by the name of the file {file}"
            )
    return RunWeights(name=file, pretraining=None, known=False)


def _beside_the_stores(record: RunRecord) -> str | None:
    folders = [store_path(record.stores_folder), *(store_path(store.path).parent for store in record.stores)]
    return first_known_weights(folders, record.weights_sha256)
