"""Figures of the GPU benchmark: one JSON and one Markdown table, complete after every figure."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import Part

_LIBRARIES = ("torch", "torchvision", "timm", "transformers", "lightning", "numpy")


class Results:
    """What was measured so far, in `folder`."""

    def __init__(
        self, folder: Path, parts: Sequence[Part], *, tiny: bool, device: str, limit_factor: float = 1.0
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.json_path, self.table_path = folder / "result.json", folder / "result.md"
        self._content: dict[str, Any] = {
            "tiny": tiny,
            "device": _device(device),
            "machine": f"{os.cpu_count()} processor cores, Python {platform.python_version()}",
            "libraries": ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES),
            "parts": {
                part.name: {
                    "claim": part.claim,
                    "limit_s": part.limit_s * limit_factor,
                    "state": "not begun",
                    "figures": {},
                }
                for part in parts
            },
        }
        self._write()

    @property
    def problems(self) -> list[str]:
        """Of every part that was cut or failed."""
        return [text for part in self._content["parts"].values() for text in part.get("problems", ())]

    def add(self, part: Part, label: str, found: object) -> None:
        """Adds the figures of one line of JSON, under their names in it."""
        place = self._content["parts"][part.name]
        place["state"] = "not ended"
        place["figures"].update(_flat(found, label))
        self._write()

    def end(self, part: Part, seconds: float, problems: Sequence[str]) -> None:
        place = self._content["parts"][part.name]
        if not place["figures"] and not problems:
            problems = ["no figure was printed"]
        place.update(state="incomplete" if problems else "complete", seconds=seconds, problems=list(problems))
        self._write()

    def table(self) -> str:
        """Markdown: of each part its claim, how it ended, and its figures."""
        content = self._content
        lines = [f"{content['device']}, {content['machine']}; {content['libraries']}"]
        lines += ["", *(["Tiny input: the figures say nothing of speed.", ""] if content["tiny"] else [])]
        for name, part in content["parts"].items():
            spent = f", {part['seconds']:.0f} of {part['limit_s']:.0f} s" if "seconds" in part else ""
            lines += [f"**{name}**: {part['claim']}. Measured: {part['state']}{spent}.", ""]
            lines += [f"- {text}" for text in part.get("problems", ())]
            lines += ["| measured | |", "|---|---|"] if part["figures"] else []
            lines += [f"| {what} | {_shown(value)} |" for what, value in part["figures"].items()] + [""]
        return "\n".join(lines)

    def _write(self) -> None:
        texts = {self.json_path: json.dumps(self._content, indent=1), self.table_path: self.table()}
        for path, text in texts.items():
            partial = path.with_suffix(".partial")
            partial.write_text(text + "\n")
            partial.replace(path)


def _flat(found: object, name: str) -> Iterator[tuple[str, Any]]:
    """Leaves of nested JSON by their path; elements of a list by what names them.

    >>> dict(_flat({"rows": [{"part": "losses", "ms": 2.5}]}, "m2f"))
    {'m2f, rows, losses, ms': 2.5}
    """
    if isinstance(found, dict):
        for key, value in found.items():
            yield from _flat(value, f"{name}, {key}" if name else str(key))
    elif isinstance(found, list):
        for number, value in enumerate(found):
            named = dict(value) if isinstance(value, dict) else {"value": value}
            which = named.pop("part", number)
            yield from _flat(named, f"{name}, {which}")
    elif found is not None:
        yield name, found


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _device(name: str) -> str:
    if not name.startswith("cuda"):
        return name
    import torch  # late: the table's other parts are made without

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU that torch can use"
