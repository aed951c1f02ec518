"""Plug-ins of another package: a folder as an installed wheel leaves it, to be put on the module path."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from extract.codecs.on_device import device_codec
from heads.index import head_index
from stores.codecs import codec
from stores.plugins import plugins


def write_package(
    folder: Path, package: str, modules: Mapping[str, str], entry_points: Mapping[str, Mapping[str, str]]
) -> Path:
    """A distribution: top-level modules by name with their source, entry points by group and name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    groups = (
        f"[{group}]\n" + "".join(f"{name} = {module}\n" for name, module in entries.items())
        for group, entries in entry_points.items()
    )
    (info / "entry_points.txt").write_text("\n".join(groups))
    return folder


@contextmanager
def installed(*folders: Path) -> Iterator[None]:
    """Within it the packages of these folders are installed in this process."""
    caches = (plugins, codec, device_codec, head_index)
    modules = {path.stem for folder in folders for path in folder.glob("*.py")}
    with pytest.MonkeyPatch.context() as patch:
        for folder in folders:
            patch.syspath_prepend(folder)
        for each in caches:
            each.cache_clear()
        try:
            yield
        finally:
            for each in caches:
                each.cache_clear()
            for name in modules:  # the next package may have other modules of these names
                sys.modules.pop(name, None)
