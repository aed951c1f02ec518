"""Which files `predict` takes: every image once, none lost to a name, no pictures of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import UsageError
from pipelines.live.predict_sources import list_sources, unique_names

ENDINGS = (".jpg", ".png")


def touched(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names_of(root: Path) -> dict[str, str]:
    """The path below the folder by the name of the output."""
    sources = list_sources(root, "images", ENDINGS)
    found = {name: str(path.relative_to(root)) for name, path in sources}
    assert len(found) == len(sources), "two sources share a name"
    return found


def test_names_are_the_paths_below_the_folder(tmp_path: Path) -> None:
    touched(tmp_path, "a.jpg", "b/c.JPG", "notes.txt", "d.jpg", "d.png")
    assert names_of(tmp_path) == {"a": "a.jpg", "b__c": "b/c.JPG", "d.jpg": "d.jpg", "d.png": "d.png"}
    assert list_sources(tmp_path / "a.jpg", "images", ENDINGS) == [("a", tmp_path / "a.jpg")]


def test_no_source_is_lost_to_a_name_that_another_has(tmp_path: Path) -> None:
    touched(tmp_path, "a/b.jpg", "a__b.jpg")
    assert sorted(names_of(tmp_path).values()) == ["a/b.jpg", "a__b.jpg"]
    touched(tmp_path, "a__b.jpg.png", "a__b.jpg-2.png", "a/b.png", "a__b.png")
    assert len(names_of(tmp_path)) == 6
    assert names_of(tmp_path)["a__b.jpg"] == "a__b.jpg.png"  # a name that is unique by itself stays


def test_names_differ_also_where_a_file_system_knows_no_capitals(tmp_path: Path) -> None:
    assert list(unique_names(["A", "a", "b"], [".jpg"] * 3)) == ["A.jpg", "a.jpg-2", "b"]
    deep = "/".join(["x" * 60] * 5)
    touched(tmp_path, f"{deep}/a.jpg", f"{deep}/b.jpg")
    assert all(len(name) < 220 for name in names_of(tmp_path))


def test_nothing_of_the_output_folder_is_a_source(tmp_path: Path) -> None:
    touched(tmp_path, "a.jpg", "out/a.overlay.png", "out/deep/b.png")
    kept = list_sources(tmp_path, "images", ENDINGS, written_to=tmp_path / "deep" / ".." / "out")
    assert [name for name, _ in kept] == ["a"]
    both = list_sources(tmp_path, "images", ENDINGS, written_to=tmp_path)
    assert len(both) == 3, "only a folder below the input is left out as a whole"


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    touched(tmp_path, "a.jpg", "._a.jpg", ".trash/b.jpg", "__MACOSX/c.jpg", "d/._e.png")
    assert list(names_of(tmp_path)) == ["a"]
    hidden_above = touched(tmp_path / ".cache", "f.jpg")  # asked for by name
    assert list(names_of(hidden_above)) == ["f"]


def test_pictures_of_earlier_predictions_are_no_sources(tmp_path: Path) -> None:
    touched(tmp_path, "a.jpg", "a.overlay.png", "a.labels.png", "a.json", "own.overlay.png")
    assert sorted(names_of(tmp_path).values()) == ["a.jpg", "own.overlay.png"]
    touched(tmp_path / "out", "a.overlay.png", "a.labels.png", "a.json")
    assert sorted(names_of(tmp_path).values()) == ["a.jpg", "own.overlay.png"]
    with pytest.raises(UsageError, match="2 pictures of earlier predictions are left out"):
        list_sources(tmp_path / "out", "images", ENDINGS)


class Compared(str):
    """A text that counts how often it is compared."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Compared.comparisons += 1
        return str(self) == other

    __hash__ = str.__hash__

    def casefold(self) -> Compared:
        return Compared(str.casefold(self))


def test_names_are_made_without_comparing_each_with_each() -> None:
    stems = [Compared(number) for number in range(500)]
    assert len(list(unique_names(stems, [".jpg"] * 500))) == 500
    assert Compared.comparisons < 10 * 500
