"""Score against bytes: linear classifiers of stored features, each passed through every codec.

    python -m benchmarks.stores.codec_scores --train features/<a> --test features/<b> --level p3 --out scores

Of label maps the classifier sees the cells of one level, of photographs by class its mean over the cells. It
is fitted by L-BFGS from zero, a convex problem, so that scores differ by what the codec changed alone. Prints
a table; --out writes it as JSON and draws score over bytes as PNG. Stores of float16 show what codecs lose;
codecs are fitted to the training rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from stores import open_store
from stores.codecs import codec
from stores.codecs.contract import Codec, FittedCodec, error_figures
from stores.reading.reader import Store
from stores.writing.codec_fit import stored_shares

CODECS = ("float16", "int8", "int4", "q1", "q2", "q5", "q10", "q20", "q40")
IGNORED = 255
_DECAY, _ITERATIONS = 1e-4, 100

Maps = Sequence[npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One codec."""

    codec: str
    share_of_int8: float
    """Stored bytes."""
    median_error: float
    worst_error: float
    accuracy: float
    """In percent: of cells, or of photographs."""
    mean_iou: float | None
    """In percent, over classes that occur; None for photographs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One level of a store and its truth."""

    maps: Maps
    """Of each row (y, x, channel) without padding."""
    truth: Sequence[npt.NDArray[np.int64]]
    """Of each row (y, x), or () of a photograph."""


def read_split(store: Store, level: str) -> Split:
    """Reads every row."""
    stride = store.pyramid[level].stride_px
    maps, truth = [], []
    for row in range(len(store)):
        height, width = (-(-int(side) // stride) for side in store.valid_hw[row])
        x = np.moveaxis(store.read_features([row], [level])[level][0], 0, -1)
        maps.append(np.ascontiguousarray(x[:height, :width]))
        targets = store.read_targets([row])[0]
        if "label" in targets:
            truth.append(targets["label"].astype(np.int64))
            continue
        labels = targets.get("labels", targets.get("original_labels"))
        assert labels is not None
        is_view = "labels" in targets  # it has the padding of its view
        shape = store.valid_hw[row] if is_view else labels.shape
        truth.append(at_cells(labels[: shape[0], : shape[1]], height, width))
    return Split(maps=maps, truth=truth)


def at_cells(labels: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[np.int64]:
    """The label at the centre of each cell."""
    y = ((np.arange(height) + 0.5) * labels.shape[0] / height).astype(int)
    x = ((np.arange(width) + 0.5) * labels.shape[1] / width).astype(int)
    return labels[y][:, x].astype(np.int64)


def measure(train: Split, test: Split, names: Sequence[str]) -> list[Point]:
    """The score of each codec."""
    int8 = _coded("int8", train.maps)[1]
    points = []
    for name in names:
        made, stored = _coded(name, train.maps)
        coded = [Split(maps=[_through(made, x) for x in s.maps], truth=s.truth) for s in (train, test)]
        before, after = (_rows(s.maps) for s in (train, coded[0]))
        figures = error_figures(before, after)
        accuracy, iou = _scores(*coded)
        points.append(
            Point(
                codec=name,
                share_of_int8=stored / int8,
                median_error=figures["median"],
                worst_error=figures["worst"],
                accuracy=accuracy,
                mean_iou=iou,
            )
        )
    return points


def _rows(maps: Maps) -> npt.NDArray[np.float32]:
    return np.concatenate([x.reshape(-1, x.shape[-1]) for x in maps])


def _coded(name: str, maps: Maps) -> tuple[Codec, float]:
    """The codec, fitted where it takes a state, and the bytes of the maps."""
    made = codec(name)
    if isinstance(made, FittedCodec):
        made = made.with_state(made.fit(_rows(maps)[None, :, None]))
    raw = sum(a.nbytes for x in maps for a in made.encode(x).values())
    codes = sum(
        made.encode(x)[kind].nbytes for x in maps for kind, p in _parts(made, x).items() if p.per_cell
    )
    return made, raw - codes + codes * stored_shares({"level": made}, [{"level": x} for x in maps])["level"]


def _parts(made: Codec, x: npt.NDArray[np.float32]) -> Mapping[str, Any]:
    return made.parts(x.shape[-1])


def _through(made: Codec, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return made.decode(made.encode(x))


def _examples(split: Split) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    if not split.truth[0].shape:
        return np.stack([x.mean(axis=(0, 1)) for x in split.maps]), np.stack(split.truth)
    labels = np.concatenate([truth.ravel() for truth in split.truth])
    return _rows(split.maps)[labels != IGNORED], labels[labels != IGNORED]


def _scores(train: Split, test: Split) -> tuple[float, float | None]:
    """Accuracy and mean IoU in percent of a linear classifier."""
    (x, y), (others, truth) = _examples(train), _examples(test)
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-6
    classes = int(max(y.max(), truth.max())) + 1
    linear = _fit(torch.from_numpy((x - mean) / deviation), torch.from_numpy(y), classes)
    with torch.no_grad():
        found = linear(torch.from_numpy((others - mean) / deviation)).argmax(1).numpy()
    accuracy = 100 * float((found == truth).mean())
    if not train.truth[0].shape:
        return accuracy, None
    counts = np.bincount(truth * classes + found, minlength=classes**2).reshape(classes, classes)
    union = counts.sum(axis=0) + counts.sum(axis=1) - np.diag(counts)
    occurs = counts.sum(axis=1) > 0
    return accuracy, 100 * float((np.diag(counts)[occurs] / union[occurs]).mean())


def _fit(x: torch.Tensor, y: torch.Tensor, classes: int) -> torch.nn.Linear:
    linear = torch.nn.Linear(x.shape[1], classes)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    optimizer = torch.optim.LBFGS(
        linear.parameters(), max_iter=_ITERATIONS, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = F.cross_entropy(linear(x), y) + _DECAY * linear.weight.square().sum()
        found.backward()
        return found

    optimizer.step(loss)
    return linear


def table(points: Sequence[Point]) -> str:
    """As text."""
    lines = [f"{'codec':8} {'of int8':>8} {'median':>8} {'worst':>8} {'accuracy':>9} {'mIoU':>7}"]
    for p in points:
        iou = "" if p.mean_iou is None else f"{p.mean_iou:7.2f}"
        errors = f"{p.median_error:8.2%} {p.worst_error:8.2%}"
        lines.append(f"{p.codec:8} {p.share_of_int8:8.1%} {errors} {p.accuracy:9.2f} {iou}")
    return "\n".join(lines)


def draw(points: Sequence[Point], picture: Path, title: str) -> None:
    """Score over bytes, PNG."""
    # Late: matplotlib takes a second to load.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="stored bytes, % of int8's", ylabel="accuracy, %", title=title)
    axes.grid(alpha=0.3)
    for is_fitted, style in ((True, "o-"), (False, "s")):
        some = [p for p in points if p.codec.startswith("q") == is_fitted]
        axes.plot([100 * p.share_of_int8 for p in some], [p.accuracy for p in some], style)
        for p in some:
            axes.annotate(p.codec, (100 * p.share_of_int8, p.accuracy), (4, 4), textcoords="offset points")
    axes.set_xscale("log", base=2)
    axes.set_xticks([25, 50, 100, 200], ["25", "50", "100", "200"])
    figure.savefig(picture, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--train", type=Path, required=True, help="store to fit codecs and classifiers to")
    parser.add_argument("--test", type=Path, required=True, help="store to score them on")
    parser.add_argument("--level", required=True)
    parser.add_argument("--codecs", default=",".join(CODECS))
    parser.add_argument("--out", type=Path, help="folder for scores.json and scores.png")
    words = parser.parse_args()
    with open_store(words.train) as train, open_store(words.test) as test:
        title = f"{train.plan.name.rpartition('-')[0]}, {words.level}, a linear classifier"
        points = measure(
            read_split(train, words.level), read_split(test, words.level), words.codecs.split(",")
        )
    print(table(points))
    if words.out is not None:
        words.out.mkdir(parents=True, exist_ok=True)
        (words.out / "scores.json").write_text(json.dumps([asdict(p) for p in points], indent=1))
        draw(points, words.out / "scores.png", title)
        print(f"written: {words.out}/scores.json, scores.png")


if __name__ == "__main__":
    main()
