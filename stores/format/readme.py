"""README.md of a store: what it is of, and how to open it with and without this project."""

from __future__ import annotations

from typing import Any

from stores.codecs import codec
from stores.format.plan import StorePlan
from stores.format.printable import escaped

README_NAME = "README.md"
_MOST_TEXT = 200

_TEXT = """\
# Features of {of}

Feature pyramids{by}: {rows} planned rows, {views} view(s) of each of {records} records.

- levels: {levels}
- codec: {codec}
- targets: {targets}
- licence of the data: {licence}{weights}
- identity: {identity}

## With Permafrost
A read returns the bytes that were written or raises.

```python
from stores import open_store

store = open_store("{folder}")
store.read_features([0])["{level}"]  # float32 (1, channel, y, x); of clips (1, time, channel, y, x)
store.xarray()  # the same arrays as an xarray DataTree
```

## Without it
The store is a Zarr v3 hierarchy. The attribute `decode` of each `q` says how its codes become values. Other
readers compare nothing with the checksums in `MANIFEST.json`, and return fill values for a missing file.

```python
import xarray, zarr

zarr.open_group("{folder}", mode="r")["bins/{bin}/levels/{level}/q"]
xarray.open_datatree("{folder}", engine="zarr")
```
{example}
`plan.json` says how the features were made. `rows` holds the record, view and outcome of each planned row.
`MANIFEST.json` is written last: without it the store is not finished.
"""


def readme(plan: StorePlan) -> bytes:
    """The text, which depends on the plan alone."""
    name, split = _field(plan, "dataset", "name"), _field(plan, "dataset", "split")
    model = _field(plan, "backbone", "model")
    levels = [f"{lv.name} (stride {lv.stride_px} px, {lv.channels} channels)" for lv in plan.pyramid]
    targets = [*(target.name for target in plan.targets), *["pixels of the views"] * plan.pixels]
    licence = plan.data_licence or "not recorded; ask whoever made the data set"
    return _TEXT.format(
        of=" ".join(filter(None, (name, split))) or plan.name,
        by=f" of the frozen backbone {model}" if model else "",
        rows=len(plan.rows),
        views=plan.rows.view_count,
        records=len(set(plan.rows.keys)),
        levels=", ".join(levels),
        codec=plan.codec,
        targets=", ".join(targets) or "none",
        licence=escaped(licence),
        weights=_weights_line(plan),
        identity=plan.identity_digest,
        folder=plan.folder_name,
        bin=plan.bins[0].name,
        level=plan.pyramid.names[0],
        example=_example(plan),
    ).encode()


def _example(plan: StorePlan) -> str:
    """How to decode a row by numpy, of codecs for which the attribute `decode` is not enough."""
    text: str | None = getattr(codec(plan.codec), "numpy_example", None)
    if text is None:
        return ""
    code = text.format(
        folder=plan.folder_name,
        bin=plan.bins[0].name,
        level=plan.pyramid.names[0],
        state=plan.codec_root,
    )
    return f"\nRow 0 of the first bin, decoded by numpy:\n\n```python\n{code}```\n"


def _weights_line(plan: StorePlan) -> str:
    """Nothing where the plan records no licence, as those of earlier releases."""
    licence = plan.weights_licence
    return f"\n- licence of timm's weights of the backbone: {escaped(licence)}" if licence else ""


def _field(plan: StorePlan, part: str, name: str) -> str:
    """A field of the identity, empty where it has none."""
    fields: Any = plan.identity.get(part)
    return escaped(fields.get(name, ""))[:_MOST_TEXT] if isinstance(fields, dict) else ""
