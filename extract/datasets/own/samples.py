"""Tiny sets in the layout of a description: smooth images with masks or boxes, for tests and trials."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from extract.datasets.depth_data.samples import depth_bytes, sample_depth
from extract.datasets.layouts.coco_sample import drawn_things
from extract.datasets.layouts.sample_files import SAMPLE_SIZES_HW, image_bytes, sample_image, sample_video
from extract.datasets.own.description import Description
from extract.datasets.persons.person_sample import write_person_split

Generator = np.random.Generator
_BLOCKS = 4
"""Blocks of one value along each side of a mask."""


def write_sample(description: Description, folder: Path, records: int, generator: Generator) -> None:
    """So many records of each split. Raises ValueError for a layout without a sample."""
    write = _WRITERS.get(description.layout)
    if write is None:
        raise ValueError(f"layout {description.layout}: no sample can be made")
    for split in description.splits:
        write(description, folder, split, records, generator)


def _masks(description: Description, folder: Path, split: str, records: int, generator: Generator) -> None:
    where = description.splits[split]
    values = [*description.classes, *description.ignored]
    pairs = []
    for name, hw in _names(split, records):
        blocks = generator.choice(values, (_BLOCKS, _BLOCKS)).astype(_mask_dtype(values))
        cells = np.ones((hw[0] // _BLOCKS, hw[1] // _BLOCKS), blocks.dtype)
        mask = np.kron(blocks, cells).astype(blocks.dtype)
        image_path = f"{_first(where, 'images', 'images')}/{name}{description.image_suffix}.jpg"
        mask_path = f"{_first(where, 'masks', 'masks')}/{name}{description.mask_suffix}.png"
        _write(folder / image_path, image_bytes(sample_image(generator, hw), "JPEG"))
        if description.has_truth(split):
            _write(folder / mask_path, image_bytes(mask, "PNG"))
        pairs.append((name, f"{image_path},{mask_path}"))
    _write_lists(folder, where.get("list", ()), [name for name, _ in pairs])
    _write_lists(folder, where.get("pairs", ()), [line for _, line in pairs])


def _mask_dtype(values: Sequence[int]) -> type[np.unsignedinteger[Any]]:
    return np.uint8 if max(values) < 256 else np.uint16


def _coco(description: Description, folder: Path, split: str, records: int, generator: Generator) -> None:
    where = description.splits[split]
    if description.keypoints is not None:
        write_person_split(
            folder / _first(where, "annotations"),
            folder / _first(where, "images"),
            *(split, records, description.classes, description.keypoints, generator),
        )
        return
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, pixels, things) in enumerate(_scenes(description, split, records, generator), start=1):
        _write(folder / _first(where, "images") / f"{name}.jpg", image_bytes(pixels, "JPEG"))
        height, width = pixels.shape[:2]
        images.append({"id": number, "file_name": f"{name}.jpg", "height": height, "width": width})
        annotations += [
            {**thing, "id": len(annotations) + place, "image_id": number}
            for place, thing in enumerate(things, start=1)
        ]
    categories = [{"id": number, "name": name} for number, name in description.classes.items()]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    if description.has_truth(split):
        _write(folder / _first(where, "annotations"), json.dumps(whole).encode())


def _voc(description: Description, folder: Path, split: str, records: int, generator: Generator) -> None:
    where = description.splits[split]
    names = []
    for name, pixels, things in _scenes(description, split, records, generator):
        _write(folder / _first(where, "images") / f"{name}.jpg", image_bytes(pixels, "JPEG"))
        objects = "".join(_voc_object(description, thing) for thing in things)
        height, width = pixels.shape[:2]
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>\n"
        if description.has_truth(split):
            _write(folder / _first(where, "annotations") / f"{name}.xml", text.encode())
        names.append(name)
    _write_lists(folder, where.get("list", ()), names)


def _voc_object(description: Description, thing: Mapping[str, Any]) -> str:
    x, y, width, height = thing["bbox"]
    first = description.first_pixel
    corners = {"xmin": x + first, "ymin": y + first}
    corners |= {"xmax": x + width - 1 + first, "ymax": y + height - 1 + first}
    box = "".join(f"<{name}>{value}</{name}>" for name, value in corners.items())
    name = escape(description.classes[thing["category_id"]])
    return f"<object><name>{name}</name><difficult>0</difficult><bndbox>{box}</bndbox></object>"


def _class_folders(
    description: Description, folder: Path, split: str, records: int, generator: Generator
) -> None:
    where = description.splits[split]
    root, lines = _first(where, "images", "images"), []
    for number, (name, hw) in enumerate(_names(split, records)):
        label = description.labels[number % len(description.labels)]
        path = f"{label}/{name}.jpg"
        _write(folder / root / path, image_bytes(sample_image(generator, hw), "JPEG"))
        lines.append(f"{path},{label}")
    _write_lists(folder, where.get("list", ()), lines)


def _labels(description: Description, folder: Path, split: str, records: int, generator: Generator) -> None:
    where = description.splits[split]
    images, annotations = [], []
    for number, (name, hw) in enumerate(_names(split, records), start=1):
        path = folder / _first(where, "images") / f"{name}.jpg"
        _write(path, image_bytes(sample_image(generator, hw), "JPEG"))
        category = description.class_numbers[number % len(description.class_numbers)]
        images.append({"id": number, "file_name": f"{name}.jpg"})
        annotations.append({"id": number, "image_id": number, "category_id": category})
    categories = [{"id": number, "name": name} for number, name in description.classes.items()]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    _write(folder / _first(where, "annotations"), json.dumps(whole).encode())


def _video_folders(
    description: Description, folder: Path, split: str, records: int, generator: Generator
) -> None:
    root = folder / _first(description.splits[split], "videos")
    for label, name, hw in _clips(description, split, records):
        _write(root / label / f"{name}.mp4", sample_video(generator, hw))


def _video_list(
    description: Description, folder: Path, split: str, records: int, generator: Generator
) -> None:
    """A list of the kind that its ending says, with the columns that the description names."""
    where, rows = description.splits[split], []
    for label, name, hw in _clips(description, split, records):
        pattern = description.file or "{path}"
        columns = [column for _, column, _, _ in Formatter().parse(pattern) if column]
        row = {column: 10 * place for place, column in enumerate(columns)} | {columns[0]: name}
        path = f"{label}/{pattern.format(**row)}.mp4"
        row = {"path": path} if not description.file else row
        _write(folder / _first(where, "videos", ".") / path, sample_video(generator, hw))
        rows.append({**row, description.label or "label": label})
    ending, columns = Path(_first(where, "list")).suffix, list(rows[0])
    lines = {
        ".txt": [" ".join(map(str, row.values())) for row in rows],
        ".json": [json.dumps(rows)],
        ".csv": [",".join(columns), *(",".join(map(str, row.values())) for row in rows)],
    }[ending]
    _write_lists(folder, where["list"], lines)
    if description.names:
        names = {label: str(number) for number, label in enumerate(_video_labels(description))}
        _write(folder / description.names, json.dumps(names).encode())


def _clips(description: Description, split: str, records: int) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """Label, name and size of each video."""
    labels = _video_labels(description)
    for number, (name, hw) in enumerate(_names(split, records)):
        yield labels[number % len(labels)], name, hw


def _video_labels(description: Description) -> Sequence[str]:
    return description.labels or ("clap", "wave")


def _tars(description: Description, folder: Path, split: str, records: int, generator: Generator) -> None:
    path = folder / _first(description.splits[split], "tars")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, (name, hw) in enumerate(_names(split, records)):
            label = description.labels[number % len(description.labels)]
            image = image_bytes(sample_image(generator, hw), "JPEG")
            for ending, data in (("jpg", image), ("cls", label.encode())):
                member = tarfile.TarInfo(f"{name}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _depths(description: Description, folder: Path, split: str, records: int, generator: Generator) -> None:
    where, lines = description.splits[split], []
    facts = {"units_per_m": description.scale, "max_depth_m": description.max_depth}
    for name, hw in _names(split, records):
        image_path = f"{_first(where, 'images', 'images')}/{name}{description.image_suffix}.jpg"
        depth_path = f"{_first(where, 'depths', 'depths')}/{name}{description.depth_suffix}.png"
        _write(folder / image_path, image_bytes(sample_image(generator, hw), "JPEG"))
        if description.has_truth(split):
            depths = sample_depth(generator, hw, facts, description.invalid)
            _write(folder / depth_path, depth_bytes(depths))
        lines.append((name, f"{image_path},{depth_path}"))
    _write_lists(folder, where.get("list", ()), [name for name, _ in lines])
    _write_lists(folder, where.get("pairs", ()), [line for _, line in lines])


_WRITERS: Mapping[str, Callable[[Description, Path, str, int, Generator], None]] = {
    "masks": _masks,
    "coco-json": _coco,
    "depth": _depths,
    "voc-xml": _voc,
    "imagefolder": _class_folders,
    "inat-json": _labels,
    "image-tars": _tars,
    "videofolder": _video_folders,
    "videolist": _video_list,
}
"""By layout."""


def _scenes(
    description: Description, split: str, records: int, generator: Generator
) -> Iterator[tuple[str, npt.NDArray[np.uint8], list[dict[str, Any]]]]:
    """Name, pixels and things of each image."""
    for name, hw in _names(split, records):
        yield name, *drawn_things(hw, list(description.classes), generator)


def _names(split: str, records: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Names that are those of one split alone, as splits may share their folders; and sizes."""
    for number in range(1, records + 1):
        yield f"{split}_{number:06d}", SAMPLE_SIZES_HW[number % len(SAMPLE_SIZES_HW)]


def _first(where: Mapping[str, Sequence[str]], key: str, default: str = "") -> str:
    return where.get(key, (default,))[0]


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _write_lists(folder: Path, lists: Sequence[str], lines: Sequence[str]) -> None:
    """All lines in the first list; none in the others."""
    for number, name in enumerate(lists):
        _write(folder / PurePosixPath(name), "".join(f"{line}\n" for line in lines if not number).encode())
