"""`describe`: looks at a folder of own data and writes a description to begin from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from extract.datasets.own.describing.describe_folder import describe_folder, description_text
from extract.datasets.own.ready_made_sets import ready_made_file
from pipelines.config import DescribeConfig
from pipelines.errors import UsageError


def run(config: DescribeConfig) -> dict[str, Any]:
    """Writes the description, or prints it where no file is named, and says what to check.

    Raises DatasetLayoutError for a folder of no known layout, UsageError for a file that exists.
    """
    folder, out = Path(config.data), Path(config.out or "own.yaml")
    if out.suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(f"--out {out}: expected a name that ends with .yaml, which stands for a data set")
    if config.out and out.exists():
        raise UsageError(f"--out {out} exists: choose another name, or remove it")
    ready_made = None if folder.exists() else ready_made_file(config.data)
    if ready_made is not None:
        return _copy(config.data, ready_made, Path(config.out) if config.out else None)
    draft = describe_folder(folder)
    text = description_text(draft, folder, out)
    if config.out:
        out.write_text(text, encoding="utf-8")
        for line in (*draft.found, *(f"odd: {line}" for line in draft.odd)):
            print(f"  {line}")
        for line in draft.open:
            print(f"  to check: {line}")
        print(
            f"{out}: layout {draft.layout}, {len(draft.classes)} classes, splits {', '.join(draft.splits)}; "
            f"check it, then: make plan DATASET={out} MODEL=swinv2-t"
        )
    else:
        print(text, end="")
    return {
        "out": config.out,
        "layout": draft.layout,
        "splits": {split: dict(where) for split, where in draft.splits.items()},
        "classes": {str(number): name for number, name in draft.classes.items()},
        "found": list(draft.found),
        "odd": list(draft.odd),
        "to_check": list(draft.open),
    }


def _copy(name: str, path: Path, out: Path | None) -> dict[str, Any]:
    """The description of a public data set, under another name, to change it."""
    text = path.read_text(encoding="utf-8")
    if out is None:
        print(text, end="")
    else:
        own = out.stem if out.stem != name else f"my-{name}"
        out.write_text(text.replace(f"name: {name}\n", f"name: {own}\n"), encoding="utf-8")
        print(f"{out}: the description of {name} as {own}; `data` is its folder, from that of {out}")
    return {"out": None if out is None else str(out), "ready_made": name}
