"""`predict`: the frozen backbone and the trained head of a run on new images."""

from __future__ import annotations

import colorsys
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from extract.sources import SourceError, decode_image
from pipelines.config import PredictConfig
from pipelines.devices import choose_device
from pipelines.exit_codes import UsageError, WorkFailed
from pipelines.run_model import RunModel, build_run_model

logger = logging.getLogger(__name__)

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
OVERLAY_SHARE = 0.5
SHOWN_CLASSES = 8
Labels = npt.NDArray[np.uint8]


def run(config: PredictConfig) -> dict[str, Any]:
    """Writes, for each image, the picture under its classes, the label map, and the shares of its classes.

    Under the output folder: `<name>.overlay.png` (the picture), `<name>.labels.png` (uint8, one class a
    pixel) and `<name>.json`. An image that cannot be read is reported and left out.

    Raises UsageError where the input holds no image, WorkFailed where none of them could be read.
    """
    images = list_images(Path(config.input))
    folder = Path(config.out) if config.out else Path(config.run) / "predictions"
    model = build_run_model(Path(config.run), config.weights, choose_device(config.device))
    folder.mkdir(parents=True, exist_ok=True)
    done, failed = [], {}
    for name, path in images:
        try:
            rgb = decode_image(path.read_bytes())
        except (SourceError, OSError) as error:
            failed[str(path)] = str(error)
            logger.warning("%s is left out: %s", path, error)
            continue
        done.append(_predict(model, rgb, folder / name, path))
        logger.info("%s: %s", path, ", ".join(_main_classes(done[-1])))
    print(f"{len(done)} images predicted into {folder}" + (f", {len(failed)} left out" if failed else ""))
    if not done:
        raise WorkFailed(f"none of the {len(images)} images under {config.input} could be read")
    return {"out": str(folder), "images": done, "failed": failed}


def list_images(source: Path) -> list[tuple[str, Path]]:
    """The images of a file or folder, those below it too, with a name for the output of each.

    A name is the path below the folder with its separators turned to `__`; images that differ in their
    ending alone keep it. Raises UsageError where there are none.
    """
    if source.is_file():
        return [(source.stem, source)]
    if not source.is_dir():
        raise UsageError(f"--input {source}: there is no such file or folder")
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if not paths:
        raise UsageError(f"--input {source}: no images there (looked for {' '.join(ENDINGS)})")
    return list(zip(_unique_names(source, paths), paths, strict=True))


def _unique_names(folder: Path, paths: list[Path]) -> Iterator[str]:
    stems = ["__".join(path.relative_to(folder).with_suffix("").parts) for path in paths]
    for stem, path in zip(stems, paths, strict=True):
        yield stem if stems.count(stem) == 1 else stem + path.suffix


def _predict(model: RunModel, rgb: npt.NDArray[np.uint8], base: Path, source: Path) -> dict[str, Any]:
    scores_KHW = model([rgb])[0]
    # The share of the best class: scores of mask heads are no probabilities.
    confidence_HW = scores_KHW.amax(0) / scores_KHW.sum(0)
    labels = scores_KHW.argmax(0).to("cpu").numpy().astype(np.uint8)
    Image.fromarray(overlay(rgb, labels)).save(f"{base}.overlay.png")
    Image.fromarray(labels).save(f"{base}.labels.png")
    counts = np.bincount(labels.reshape(-1), minlength=len(model.class_names))
    present = sorted(np.flatnonzero(counts), key=lambda label: -counts[label])
    summary = {
        "image": str(source),
        "height": rgb.shape[0],
        "width": rgb.shape[1],
        "mean_confidence": float(confidence_HW.mean()),
        "classes": [
            {
                "class": int(label),
                "name": model.class_names[label],
                "share": float(counts[label] / labels.size),
                "colour": list(map(int, palette()[label])),
            }
            for label in present
        ],
    }
    Path(f"{base}.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _main_classes(summary: dict[str, Any]) -> list[str]:
    return [f"{100 * item['share']:.0f} % {item['name']}" for item in summary["classes"][:SHOWN_CLASSES]]


def overlay(rgb: npt.NDArray[np.uint8], labels: Labels) -> npt.NDArray[np.uint8]:
    """The image (H, W, 3) under the colours of its labels (H, W), borders between classes in white."""
    mixed = (1 - OVERLAY_SHARE) * rgb + OVERLAY_SHARE * palette()[labels]
    borders = np.zeros(labels.shape, bool)
    borders[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    borders[1:] |= labels[1:] != labels[:-1]
    mixed[borders] = 255
    return mixed.round().astype(np.uint8)


def palette() -> npt.NDArray[np.uint8]:
    """A colour for each label, uint8 (256, 3): hues a golden section apart, so that neighbours differ."""
    colours = [
        colorsys.hsv_to_rgb(label * 0.618034 % 1, (0.9, 0.6)[label % 2], (1.0, 0.75, 0.5)[label % 3])
        for label in range(256)
    ]
    return (255 * np.array(colours)).round().astype(np.uint8)
