"""Prediction of a photograph's class: its most likely classes, and a picture with their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from extract.datasets import Record
from extract.sources.byte_sources import decode_image
from pipelines.json_output import write_json
from pipelines.live.run_model import RunModel
from pipelines.pictures.labelled_photo import draw_classes


def predict_class(model: RunModel, source: Path, base: Path, top: int) -> dict[str, Any]:
    """Writes `<base>.json` and `<base>.overlay.png` of one photograph and returns the content of the JSON
    file.

    Args:
        top: how many of the most likely classes to keep.

    Raises SourceError where the file is no image, OSError where it cannot be read.
    """
    rgb = decode_image(source.read_bytes())
    probabilities, classes = model([rgb])[0].cpu().sort(descending=True, stable=True)
    likeliest = [
        {"class": number, "name": model.class_names[number], "probability": probability}
        for number, probability in zip(classes[:top].tolist(), probabilities[:top].tolist(), strict=True)
    ]
    view = model.recipe.view("", Record("", 0, (rgb.shape[0], rgb.shape[1])), 0, 0)
    draw_classes(view.apply_image(rgb), likeliest, Path(f"{base}.overlay.png"))
    summary = {
        "image": str(source),
        "height": rgb.shape[0],
        "width": rgb.shape[1],
        "classes": likeliest,
    }
    write_json(Path(f"{base}.json"), summary)
    return summary
