"""Small files: bytes, parts and kinds are bounded before they cost memory or time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from stores.errors import FormatError
from stores.format.canonical_json import parse_canonical
from stores.small_files import (
    SmallFileError,
    read_json,
    read_parsed,
    read_small,
    read_small_text,
    require_few_containers,
    require_few_parts,
)


def read_yaml(path: Path) -> object:
    return read_parsed(path, yaml.safe_load)


def test_a_small_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("\ufeff{}", encoding="utf-8")
    assert read_small_text(path) == "{}"
    path.write_bytes(bytes(10))
    assert read_small(path, 10) == bytes(10)
    with pytest.raises(SmallFileError, match="10 bytes, at most 9 are read"):
        read_small(path, 9)
    with pytest.raises(FileNotFoundError):
        read_small(tmp_path / "none")


def test_pipes_and_devices_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(SmallFileError, match="not a regular file"):
            read_small(path)


def test_aliases_that_repeat_each_other_are_counted(tmp_path: Path) -> None:
    """Nine lines that stand for 9**9 values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(SmallFileError, match="more than 1000000 values"):
        read_yaml(tmp_path / "bomb.yaml")
    (tmp_path / "fine.yaml").write_text("a: &a [1, 2]\nb: *a\n")
    assert read_yaml(tmp_path / "fine.yaml") == {"a": [1, 2], "b": [1, 2]}


def test_an_alias_within_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("a: &a [*a]\n")
    with pytest.raises(SmallFileError, match="more than"):
        read_yaml(tmp_path / "loop.yaml")
    require_few_parts({"a": [1, (2, 3)]}, "it", most=6)
    with pytest.raises(SmallFileError):
        require_few_parts({"a": [1, (2, 3)]}, "it", most=5)


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_deep_nesting_is_an_error_of_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep.{suffix}"
    path.write_text("[" * 5000 + "]" * 5000)
    with pytest.raises(SmallFileError, match="nested too deeply"):
        read_json(path) if suffix == "json" else read_yaml(path)


def test_json_of_nothing_but_containers_is_refused_before_it_is_parsed() -> None:
    """A parsed `{}` takes 23 times its bytes: 60 MB of them took 1.6 GB."""
    bomb = b"[" + b"{}," * 200_000 + b"{}]"
    with pytest.raises(SmallFileError, match="200002 lists and objects"):
        require_few_containers(bomb, "it")
    with pytest.raises(FormatError, match="200002 lists and objects"):
        parse_canonical(bomb, "a manifest")
    records = b"[" + b",".join([b'{"code":1,"row":123456}'] * 200_000) + b"]"
    require_few_containers(records, "it")
