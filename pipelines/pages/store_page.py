"""Page of a store: identity, bytes, codec error, throughput, skipped records, features, how to open it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.analyses.components import component_colours
from pipelines.catalog.data_folder import recorded_data
from pipelines.catalog.skipped_rows import skipped_lines
from pipelines.pages.byte_map import HEIGHT, WIDTH, Tile, byte_tiles
from pipelines.pages.page import write_page
from pipelines.pages.skipped_pictures import skipped_pictures
from pipelines.pages.store_log import read_store_log
from pipelines.pages.tables import Cell, Column, Table, number
from pipelines.pages.throughput_charts import throughput_charts
from pipelines.units import gigabytes
from stores import open_store
from stores.checks.status import store_status
from stores.format.arrays import sharded_arrays
from stores.format.printable import escaped
from stores.reading.committed_store import read_plan
from stores.remote.opening import open_folder
from stores.remote.store_url import StoreUrl, store_path

ROWS_SHOWN = 8
"""Rows whose features are shown, of the bin with most rows."""
MAX_SKIPPED = 200
MAX_COMMANDS = 20
_CELL_PX = 8
_WIDEST_PX = 512


@dataclass(frozen=True, slots=True)
class Strip:
    """A level of the rows shown."""

    level: str
    uris: Sequence[str]


@dataclass(frozen=True, slots=True)
class InkedTile:
    """A tile with the colour of its text."""

    tile: Tile
    ink: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tile, name)


def write_store_page(
    described: Mapping[str, Any],
    flat_identity: Sequence[tuple[str, Any]],
    path: Path,
    data: str | None = None,
) -> int:
    """Writes the page of a store as `info` describes it. Returns its bytes.

    Features are shown of a complete store only. Everything else is read from small files, and thumbnails of
    skipped records from the data set where it is at hand.

    Args:
        data: folder of the data set; None: the one that the store was extracted from, or its default.
    """
    folder = store_path(described["store"])
    plan = read_plan(open_folder(folder), None)
    status = store_status(folder)
    log = read_store_log(folder)
    thumbnails = skipped_pictures(
        described["identity"]["dataset"], [key for key, *_ in status.skipped], data or recorded_data(folder)
    )
    keys, strips = _strips(folder) if described["complete"] else ([], [])
    skipped = skipped_lines((key, view, reason) for key, view, _, reason in status.skipped)
    by_bin = {
        b.name: {
            name.split("/")[1]: spec.row_bytes * b.rows
            for name, spec in sharded_arrays(plan, index).items()
            if name.startswith("levels/") and not name.endswith(("scale", "scales"))
        }
        for index, b in enumerate(plan.bins)
    }
    state = "complete" if described["complete"] else f"{len(status.missing)} shards are missing"
    return write_page(
        path,
        "store.html",
        title=escaped(folder.name),
        folder=escaped(str(folder)),
        summary=f"{state}: {status.written} of {described['rows']} rows written, {len(skipped)} skipped, "
        f"{_size(folder, described['bytes_on_disk'])}.",
        facts=_facts(described),
        tiles=[_inked(tile) for tile in byte_tiles(by_bin)],
        map_width=WIDTH,
        map_height=HEIGHT,
        levels=_levels(described),
        strips=strips,
        keys=keys,
        places={key: place for place, key in enumerate(keys)},
        skipped=Table([Column("record, view and reason")], [[Cell(line)] for line in skipped[:MAX_SKIPPED]]),
        skipped_left=max(0, len(skipped) - MAX_SKIPPED),
        commands=_commands(folder, tuple(described["levels"])),
        made_by="\n".join(map(escaped, log.commands[-MAX_COMMANDS:])),
        charts=throughput_charts(log),
        thumbnails=thumbnails,
        identity=Table(
            [Column("field"), Column("value")],
            [[Cell(escaped(field)), Cell(escaped(str(value)))] for field, value in flat_identity],
        ),
    )


def _size(folder: Path, size: int | None) -> str:
    """Bytes of a store, and where; a web server lists no files."""
    if size is None:
        return "on a web server, which does not list its files"
    return f"{gigabytes(size)} {'in object storage' if isinstance(folder, StoreUrl) else 'on disk'}"


def _facts(described: Mapping[str, Any]) -> Table:
    identity = described["identity"]
    rows = [
        ("data set", f"{identity['dataset']['name']}, {identity['dataset']['split']}"),
        ("records and rows", f"{described['records']} records, {described['rows']} rows"),
        ("backbone", f"{identity['backbone']['model']}, {identity['backbone'].get('precision')}"),
        ("weights", f"sha256 {identity['backbone']['weights_sha256']}"),
        ("codec", identity["codec"]["name"]),
        ("targets", ", ".join(described["targets"]) or "none"),
        ("identity", described["identity_digest"]),
        ("content digest", described["content_digest"] or "not recorded"),
        ("manifest", described["manifest_digest"] or "unfinished"),
    ]
    return Table(
        [Column("fact"), Column("value")], [[Cell(name), Cell(escaped(str(text)))] for name, text in rows]
    )


def _levels(described: Mapping[str, Any]) -> Table:
    total = sum(level["bytes"] for level in described["levels"].values()) or 1
    columns = [Column("level"), Column("stride", True), Column("channels", True)]
    columns += [Column("bytes", True), Column("share", True), Column("bits a value", True)]
    columns += [Column("codec error, median channel", True), Column("worst channel", True)]
    rows = [
        [
            Cell(name),
            Cell(f"{level['stride_px']} px", level["stride_px"]),
            Cell(str(level["channels"]), level["channels"]),
            Cell(gigabytes(level["bytes"]), level["bytes"]),
            Cell(f"{100 * level['bytes'] / total:.1f} %", level["bytes"]),
            number(level.get("bits_per_value"), "{:.2f}"),
            number(_percent(level.get("median")), "{:.2f} % of a deviation"),
            number(_percent(level.get("worst")), f"{{:.2f}} % (channel {level.get('worst_channel')})"),
        ]
        for name, level in described["levels"].items()
    ]
    return Table(columns, rows)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _commands(folder: Path, levels: Sequence[str]) -> str:
    name = escaped(str(folder))
    return (
        "# with this project: every read is checked\n"
        "from stores import open_store\n"
        f'store = open_store("{name}")\n'
        f'store.read_features([0, 1], levels=("{levels[-1]}",))\n\n'
        "# with zarr-python alone: unchecked (docs/store-format.md)\n"
        "import zarr\n"
        f'zarr.open_group("{name}", mode="r").tree()\n'
    )


def _inked(tile: Tile) -> InkedTile:
    is_dark = sum(int(tile.colour[at : at + 2], 16) for at in (1, 3, 5)) < 3 * 140
    return InkedTile(tile, "#ffffff" if is_dark else "#1b1f23")


def _strips(folder: Path) -> tuple[list[str], list[Strip]]:
    """Keys of the rows shown, and their colours level by level; of maps of more than one cell."""
    with open_store(folder) as store:
        if not len(store):
            return [], []
        bins = np.asarray(store.bins)
        names, counts = np.unique(bins, return_counts=True)
        rows = np.flatnonzero(bins == names[counts.argmax()])[:ROWS_SHOWN].tolist()
        keys = [f"{store.keys[row]}, view {store.views[row]}" for row in rows]
        levels = [level for level in store.pyramid if level.stride_px]
        features = store.read_features(rows, levels=[level.name for level in levels])
        strips = []
        for level in levels:
            maps = [
                _valid(maps_Cyx, tuple(store.valid_hw[row]), level.stride_px)
                for maps_Cyx, row in zip(features[level.name], rows, strict=True)
            ]
            if maps[0].shape[1] * maps[0].shape[2] > 1:
                strips.append(Strip(level.name, [_uri(colours) for colours in component_colours(maps)]))
    return [escaped(key) for key in keys], strips[::-1]


def _valid(
    map_Cyx: npt.NDArray[np.float32], valid_hw: tuple[int, ...], stride_px: float
) -> npt.NDArray[np.float32]:
    """Without padded cells; of a clip its middle frame."""
    if map_Cyx.ndim == 4:
        map_Cyx = map_Cyx[:, map_Cyx.shape[1] // 2]
    height, width = (max(1, int(side // stride_px)) for side in valid_hw)
    return map_Cyx[:, :height, :width]


def _uri(colours: npt.NDArray[np.uint8]) -> str:
    """A cell as a square of pixels: colours are exact, and edges sharp."""
    picture = Image.fromarray(colours)
    zoom = max(1, min(_CELL_PX, _WIDEST_PX // max(picture.size)))
    picture = picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)
    file = BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
