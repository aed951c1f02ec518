"""Page of runs: one file that needs no network; sorted, switched and read in a browser by the tests of ci."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pipelines.__main__ import main
from pipelines.pages.page import MAX_BYTES
from tests.pipelines.pages.browser import opened

GOLDEN_RUN = Path(__file__).parents[2] / "golden" / "run-linear" / "run"
CLASSES = ("road & kerb", "<car>", "tree")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs with other scores, classes and pictures, of two learning rates."""
    made = []
    for number, name in enumerate(("first", "second")):
        folder = Path(shutil.copytree(GOLDEN_RUN, tmp_path_factory.mktemp("runs") / name))
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["optimizer"]["lr"] = 0.5 + number
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        evaluated = json.loads((folder / "evaluate.json").read_text())
        evaluated["scores"]["top-1"] = 0.25 + number / 2
        (folder / "evaluate.json").write_text(json.dumps(evaluated))
        with (folder / "classes.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("class", "name", "iou"))
            writer.writerows((at, text, (0.5, 0.25 * number, "")[at]) for at, text in enumerate(CLASSES))
        Image.new("RGB", (1800, 400), ("red", "blue")[number]).save(folder / "confusion.png")
        made.append(folder)
    return made


@pytest.fixture(scope="module")
def page(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "runs.html"
    assert main(["report", *map(str, runs), "--out", str(path)]) == 0
    return path


def test_it_is_one_file_without_addresses(page: Path) -> None:
    text = page.read_text()
    assert page.stat().st_size < MAX_BYTES
    assert "://" not in text
    assert set(re.findall(r'(?:src|href)="([^"]{1,5})', text)) <= {"data:"} | set(
        re.findall(r'xlink:href="(#[^"]{4})', text)
    )
    assert [path.name for path in page.parent.iterdir()] == [page.name]


def test_it_shows_scores_differences_classes_and_pictures(page: Path) -> None:
    text = page.read_text()
    for shown in ("25.00", "75.00", "linear (first)", "linear (second)", "optimizer.lr"):
        assert shown in text, shown
    assert "linear (second) minus linear (first), class by class." in text
    assert "road &amp; kerb" in text and "&lt;car&gt;" in text and "<car>" not in text
    assert text.count("data:image/jpeg;base64,") == 2


def test_own_data_has_no_column_of_a_paper(runs: list[Path], page: Path, tmp_path: Path) -> None:
    """A paper reports on Kinetics-400, none on "garden"."""
    assert "paper, frozen" in page.read_text()
    folder = Path(shutil.copytree(runs[0], tmp_path / "run"))
    record = json.loads((folder / "run.json").read_text())
    record["identity"]["dataset"]["name"] = "garden"
    (folder / "run.json").write_text(json.dumps(record))
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "garden" in text and "paper, frozen" not in text


def test_twenty_runs_with_pictures_stay_below_the_limit(runs: list[Path], tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    for number in range(20):
        folder = Path(shutil.copytree(runs[0], tmp_path / f"run{number}"))
        Image.fromarray(noise).save(folder / "worst-records.png")
    path = tmp_path / "twenty.html"
    folders = [str(tmp_path / f"run{number}") for number in range(20)]
    assert main(["report", *folders, "--out", str(path)]) == 0
    assert path.stat().st_size < MAX_BYTES
    assert "more pictures are in the run folders" in path.read_text()


def test_two_pages_of_one_state_are_equal(page: Path, runs: list[Path], tmp_path: Path) -> None:
    again = tmp_path / "again.html"
    assert main(["report", *map(str, runs), "--out", str(again)]) == 0
    assert again.read_bytes() == page.read_bytes()


def test_the_ending_decides(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(runs[0]), "--out", str(tmp_path / "r.json")]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["rows"][0]["head"] == "linear"
    assert main(["report", str(runs[0]), "--out", str(tmp_path / "r.pdf")]) == 2
    assert "expected a name that ends with .html, .csv, .json" in capsys.readouterr().err
    assert not (tmp_path / "r.pdf").exists()


@pytest.mark.ci
def test_a_browser_sorts_and_switches(page: Path) -> None:
    """With the network off, by mouse and keyboard, on a narrow screen."""
    with opened(page) as (view, complaints):
        heading = view.get_by_role("button", name="top-1", exact=False).first
        first_row = view.locator("table tbody tr").first
        heading.click()
        assert "25.00" in first_row.inner_text()
        heading.focus()
        view.keyboard.press("Enter")
        assert "75.00" in first_row.inner_text()
        line = view.locator("#loss-run1")
        assert line.count() == 1 and line.is_visible()
        view.locator("input[data-run='1']").uncheck()
        assert not line.is_visible()
        assert view.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert complaints == []
