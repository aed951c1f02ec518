"""Prediction of a video: its most likely classes over the run's test views, and the frames used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from extract.datasets import Record
from extract.decoding.video_media import Videos
from extract.sources.byte_sources import FileSource
from pipelines.json_output import write_json
from pipelines.live.backbone import live_features
from pipelines.live.run_model import RunModel
from pipelines.pictures.clips import draw_prediction


def predict_video(model: RunModel, source: Path, base: Path, top: int) -> dict[str, Any]:
    """Writes `<base>.json` and `<base>.png` of one video file and returns the content of the JSON file.

    Args:
        top: how many of the most likely classes to keep.

    Probabilities are the mean over the model's test views, as in `evaluate`. Raises SourceError where the
    file is no video, OSError where it cannot be read.
    """
    data, videos = source.read_bytes(), Videos()
    facts = videos.facts(FileSource(source, len(data)))
    record = Record(source.stem, len(data), facts.hw, facts.frames, facts.fps, facts.decoder)
    views = [model.recipe.view("", record, number, 0) for number in range(model.recipe.fixed_count or 1)]
    clips = videos.render(data, record, views)
    total_K = torch.zeros(len(model.class_names))
    for view, clip_THWC in zip(views, clips, strict=True):
        features = live_features(model.backbone, clip_THWC[None], [view.valid_hw])
        total_K += model.head.predict(features, [view.valid_hw], [facts.hw])[0].cpu()
    probabilities, classes = (total_K / len(views)).sort(descending=True, stable=True)
    likeliest = [
        {"class": number, "name": model.class_names[number], "probability": probability}
        for number, probability in zip(classes[:top].tolist(), probabilities[:top].tolist(), strict=True)
    ]
    summary = {
        "video": str(source),
        "height": facts.hw[0],
        "width": facts.hw[1],
        "frames": facts.frames,
        "fps": facts.fps,
        "views": len(views),
        "classes": likeliest,
    }
    draw_prediction(clips[len(clips) // 2], likeliest, Path(f"{base}.png"))
    write_json(Path(f"{base}.json"), summary)
    return summary
