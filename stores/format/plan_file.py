"""plan.json and the planned row tables: a StorePlan on disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.codecs import codec, needs_state
from stores.codecs.contract import State, states_sha256
from stores.errors import (
    FIX_DERIVED,
    FIX_PLAN,
    CodecError,
    DerivedFileError,
    FormatError,
    IntegrityError,
    PlanError,
    StoreError,
)
from stores.format.array_spec import FORMAT_NAME, FORMAT_VERSION, ArraySpec
from stores.format.arrays import planned_tables, state_table, state_tables
from stores.format.canonical_json import canonical_json, parse_canonical, sha256_hex
from stores.format.features import FITTED_CODEC, KNOWN_REQUIRED, PACKED
from stores.format.plan import MAX_PLAN_BYTES, Bin, StorePlan
from stores.format.row_table import MAX_KEY_BYTES, MAX_ROWS, LazyTable, RowTable
from stores.format.targets import TARGET_DTYPES, target_from_json
from stores.pyramid import PyramidSpec

MAX_VIEW_PARAMS = 1024
MAX_STATE_ARRAYS = 64


def encode_tables(plan: StorePlan) -> dict[str, bytes]:
    """The bytes of the planned tables' chunk files by path, those of a fitted codec's arrays among them."""
    tables = plan.rows.to_tables()
    planned = {spec.chunk_file(): tables[name].tobytes() for name, spec in plan.planned_tables.items()}
    return {**planned, **encode_state(plan)}


def encode_state(plan: StorePlan) -> dict[str, bytes]:
    """The bytes of the chunk files of a fitted codec's arrays by path; empty for other codecs."""
    states = plan.codec_state or {}
    return {
        spec.chunk_file(): np.ascontiguousarray(states[level][name], spec.dtype).tobytes()
        for level, specs in state_tables(plan).items()
        for name, spec in specs.items()
    }


def encode_plan(plan: StorePlan) -> bytes:
    """The content of plan.json. Raises PlanError above 1 MiB, and for a codec that has not been fitted."""
    if plan.codec_state is None and needs_state(codec(plan.codec)):
        raise PlanError(f"codec {plan.codec} has to be fitted to sample rows before a store is made")
    data = canonical_json(plan_content(plan))
    if len(data) > MAX_PLAN_BYTES:
        raise PlanError(
            f"plan.json has {len(data)} bytes, at most {MAX_PLAN_BYTES}; keep digests in the identity"
        )
    return data


def plan_content(plan: StorePlan) -> dict[str, Any]:
    """The fields of plan.json."""
    tables = plan.rows.to_tables()
    return {
        "format": {"name": FORMAT_NAME, "version": FORMAT_VERSION},
        "name": plan.name,
        "identity": plan.identity,
        "levels": plan.pyramid.to_json(),
        "codec": {"name": plan.codec, "settings": plan.codec_settings},
        "bins": [b.to_json() for b in plan.bins],
        "targets": [target.to_json() for target in plan.targets],
        "view_params": plan.view_params,
        "frames": plan.frames,
        "pixels": plan.pixels,
        "required_features": (*codec(plan.codec).required_features, *plan.required_features),
        "optional_features": plan.optional_features,
        **({"own_shards": plan.own_shards} if PACKED in plan.features else {}),
        **({} if plan.data_licence is None else {"data_licence": plan.data_licence}),
        **({} if plan.weights_licence is None else {"weights_licence": plan.weights_licence}),
        **({} if plan.backbone_costs is None else {"backbone_costs": plan.backbone_costs}),
        "rows": {
            "count": len(plan.rows),
            "key_bytes": tables["key"].shape[1],
            "sha256": {name: _table_sha256(tables[name]) for name in plan.planned_tables},
        },
        **({} if plan.codec_state is None else {"codec_state": _state_json(plan.codec_state)}),
    }


def _table_sha256(table: npt.NDArray[Any]) -> str:
    return sha256_hex(np.ascontiguousarray(table).reshape(-1).view(np.uint8).data)


def _state_json(states: Mapping[str, State]) -> dict[str, Any]:
    arrays = {
        level: {name: {"dtype": a.dtype.name, "shape": list(a.shape)} for name, a in state.items()}
        for level, state in states.items()
    }
    return {"sha256": states_sha256(states), "arrays": arrays}


def decode_state(
    content: dict[str, Any], read_table: Callable[[ArraySpec], bytes], what: str
) -> dict[str, State] | None:
    """The state of a fitted codec in the fields of a plan.json; None for other codecs.

    Raises FormatError for fields or types out of bounds, IntegrityError for arrays of another digest.
    """
    if FITTED_CODEC not in content["required_features"]:
        return None
    fields, features = content["codec_state"], {*content["required_features"], *content["optional_features"]}
    digest, found = str(fields["sha256"]), dict[str, State]()
    if not re.fullmatch("[0-9a-f]{64}", digest) or len(fields["arrays"]) > MAX_STATE_ARRAYS:
        raise FormatError(f"{what}: codec_state is out of bounds")
    for level, arrays in fields["arrays"].items():
        state = {}
        for name, form in list(arrays.items())[:MAX_STATE_ARRAYS]:
            shape = tuple(form["shape"])
            is_name = re.fullmatch(r"[a-z][a-z0-9_.]{0,99}", f"{level}") and re.fullmatch(
                r"[a-z][a-z0-9_]{0,99}", name
            )
            if not is_name or form["dtype"] not in TARGET_DTYPES or not 1 <= len(shape) <= 8:
                raise FormatError(f"{what}: codec_state of {level[:80]!r} {name[:80]!r} is out of bounds")
            if any(type(size) is not int or not 1 <= size <= 1 << 28 for size in shape):
                raise FormatError(f"{what}: codec_state of {level} {name} has the shape {shape}")
            spec = state_table(
                f"codec/{digest[:16]}/{level}/{name}", np.dtype(form["dtype"]), shape, features
            )
            state[name] = np.frombuffer(read_table(spec), dtype=spec.dtype).reshape(shape)
        found[level] = state
    if states_sha256(found) != digest:
        raise IntegrityError(
            f"{what}: the fitted arrays of the codec were changed: their digest is not the plan's"
        )
    return found


def check_format(content: dict[str, Any], what: str) -> None:
    """Raises FormatError for another format or version; call it before reading any other field."""
    found = content.get("format")
    if not isinstance(found, dict) or found.get("name") != FORMAT_NAME:
        raise FormatError(f"{what} is not of the format {FORMAT_NAME!r}, found {str(found)[:80]}")
    version = found.get("version")
    if version != FORMAT_VERSION:
        age = "an older" if isinstance(version, int) and version < FORMAT_VERSION else "a newer"
        raise FormatError(
            f"{what} is of format version {str(version)[:20]}, this program reads version {FORMAT_VERSION}: "
            f"use {age} release of the program, or extract again"
        )


def known_features(content: dict[str, Any]) -> frozenset[str]:
    """Extensions of v1 that this program understands of a plan.json, and those of its codec.

    Raises CodecError where the codec is absent."""
    try:
        name, recorded = content["codec"]["name"], content["identity"].get("codec")
    except (KeyError, TypeError, AttributeError):  # reported where the fields are read
        return KNOWN_REQUIRED
    package = recorded.get("package") if isinstance(recorded, dict) else None
    made = codec(str(name), package if isinstance(package, str) else None)
    return frozenset({*made.required_features, *KNOWN_REQUIRED})


def check_features(content: dict[str, Any], what: str) -> None:
    """Raises FormatError for required features, or a codec, that this program does not know."""
    try:
        known = known_features(content)
    except CodecError as error:
        raise FormatError(f"{what}: {error}") from None
    unknown = sorted(set(map(str, content.get("required_features", []))) - known)
    if unknown:
        names = ", ".join(repr(name[:80]) for name in unknown[:20])
        raise FormatError(
            f"{what} requires features this program does not know: {names}; use a newer release"
        )


def decode_plan(data: bytes, read_table: Callable[[ArraySpec], bytes], what: str) -> StorePlan:
    """The plan in plan.json.

    Args:
        data: the file, at most MAX_PLAN_BYTES.
        read_table: returns the bytes of a planned table, whose length is that of its spec.
        what: names the store in errors.

    Raises:
        FormatError: an unknown format, version, feature, codec or type, or a size out of bounds.
        IntegrityError: a table whose digest differs.
    """
    content = parse_canonical(data, what, FIX_PLAN)
    check_format(content, what)
    check_features(content, what)
    try:
        return _decode(content, read_table, what)
    except StoreError as error:
        if isinstance(error, PlanError):
            raise FormatError(f"{what}: {error}") from None
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, UnicodeError) as error:
        raise FormatError(f"{what}: {type(error).__name__}: {str(error)[:200]}") from None


def _decode(content: dict[str, Any], read_table: Callable[[ArraySpec], bytes], what: str) -> StorePlan:
    required = _beyond_codec(content["required_features"], content["codec"]["name"])
    optional = tuple(map(str, content["optional_features"]))
    licence, of_weights = content.get("data_licence"), content.get("weights_licence")
    return StorePlan(
        name=content["name"],
        identity=dict(content["identity"]),
        pyramid=_bounded_pyramid(content["levels"]),
        codec=content["codec"]["name"],
        codec_settings=dict(content["codec"]["settings"]),
        bins=tuple(Bin(**fields) for fields in content["bins"]),
        targets=tuple(target_from_json(fields) for fields in content["targets"]),
        view_params=tuple(map(str, content["view_params"])),
        rows=_decode_rows(
            content["rows"], len(content["view_params"]), {*required, *optional}, read_table, what
        ),
        frames=content["frames"],
        pixels=bool(content["pixels"]),
        required_features=required,
        optional_features=optional,
        codec_state=decode_state(content, read_table, what),
        own_shards=tuple(map(str, content["own_shards"])) if PACKED in required else (),
        data_licence=None if licence is None else str(licence),
        weights_licence=None if of_weights is None else str(of_weights),
        backbone_costs=content.get("backbone_costs"),
    )


def _beyond_codec(required: list[str], codec_name: str) -> tuple[str, ...]:
    """The required features after the codec's own, which come first."""
    try:
        own = codec(codec_name).required_features
    except CodecError as error:
        raise PlanError(str(error)) from None
    if tuple(required[: len(own)]) != own:
        raise FormatError(f"codec {codec_name} needs the required features {own}, found {required[:20]}")
    return tuple(map(str, required[len(own) :]))


def _bounded_pyramid(levels: list[dict[str, Any]]) -> PyramidSpec:
    for level in levels:
        for field in ("stride_px", "channels", "stage"):
            if type(level[field]) is not int or not 1 <= level[field] <= 1 << 20:
                raise FormatError(f"level {str(level.get('name'))[:40]}: {field} is {str(level[field])[:40]}")
    return PyramidSpec.from_json(levels)


def _decode_rows(
    fields: dict[str, Any],
    view_params: int,
    features: Collection[str],
    read_table: Callable[[ArraySpec], bytes],
    what: str,
) -> RowTable:
    for name, value, limit in (
        ("rows.count", fields["count"], MAX_ROWS),
        ("rows.key_bytes", fields["key_bytes"], MAX_KEY_BYTES),
        ("view_params", view_params + 1, MAX_VIEW_PARAMS),
    ):
        if type(value) is not int or not 1 <= value <= limit:
            raise FormatError(f"{what}: {name} is {str(value)[:40]}, expected 1 to {limit}")
    count = fields["count"]

    def table(name: str, spec: ArraySpec) -> npt.NDArray[Any]:
        raw = read_table(spec)
        if sha256_hex(raw) != fields["sha256"][name]:
            raise DerivedFileError(
                f"{what}: table {spec.path} was changed: its digest is not the plan's; {FIX_DERIVED}"
            )
        return np.frombuffer(raw, dtype=spec.dtype).reshape(spec.shape)

    tables: dict[str, Any] = {"params": np.empty((count, 0))}
    specs = planned_tables(count, fields["key_bytes"], view_params, features)
    for name, spec in specs.items():
        tables[name] = table(name, spec)
        if name == "params":  # the largest: compared here, and read again by whoever uses it
            tables[name] = LazyTable(spec.shape, partial(table, name, spec))
    return RowTable.from_tables(tables)
