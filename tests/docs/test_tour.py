"""The notebook docs/tour.ipynb runs from its first cell to its last on a small demo."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from pipelines.config import DemoConfig
from pipelines.demo.ade20k import DemoSize, run_demo

TOUR = Path(__file__).parents[2] / "docs" / "tour.ipynb"


@pytest.mark.ci
def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = DemoSize(training_scenes=8, validation_scenes=3, views=1, max_steps=3)
    run_demo(DemoConfig(run=str(tmp_path)), size)
    monkeypatch.setenv("PERMAFROST_DEMO", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(TOUR.parents[1]))  # this checkout, whichever is installed
    notebook = nbformat.read(TOUR, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # small differences in version control
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(tmp_path))
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in shown if output.output_type == "error"]
    pictures = [output for output in shown if "image/png" in output.get("data", {})]
    tables = [output.data["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert len(pictures) == 4
    assert all(
        any(caption in table for table in tables) for caption in ("Store ade20k", "Row of", "Trained run")
    )
