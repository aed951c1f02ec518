"""Broken images, sources that change, disks and devices that fail: skipped, refused or retried."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from extract.backbones.loading import FrozenBackbone
from extract.datasets import Dataset, open_dataset
from extract.extractor import batch_order
from extract.extractor.run import TooManyFailed
from extract.sources.byte_sources import BAD_TARGET
from stores import verify_store
from stores.checks.status import store_status
from stores.errors import IdentityError
from stores.format.row_table import NON_FINITE, OVER_LIMIT, UNDECODABLE, WRONG_SIZE
from stores.shards.disk import Files
from tests.extract.datasets.made_ade20k import encoded, made_image, made_labels, make_pairs, write_split
from tests.extract.extractor.extraction import Row, Stopping, Wrapped, row_digests, run, skipped
from tests.extract.sources.test_byte_sources import gray16, png_bomb, turned

PAIRS = make_pairs(9, "training")
BAD = "ADE_train_00000003"


@pytest.fixture(autouse=True)
def unsynced_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power, and nothing recovers while a retry waits."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr("extract.sources.byte_sources._PAUSES_S", (0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, backbone: FrozenBackbone) -> dict[Row, str]:
    """The rows of the data set without a fault."""
    folder = tmp_path_factory.mktemp("clean")
    write_split(folder / "data", "training", PAIRS)
    return row_digests(run(folder / "data", folder / "stores", backbone, views=2, shard_rows=4)[0])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_split(tmp_path / "data", "training", PAIRS)
    return tmp_path / "data"


SETTINGS = {"views": 2, "shard_rows": 4}
IMAGE = Image.fromarray(made_image(1, (40, 56)))
LABELS = encoded(made_labels(0, (40, 56)), "PNG")


@pytest.mark.parametrize(
    ("jpg", "png", "code", "reason"),
    [
        pytest.param(PAIRS[BAD][0][:-400], PAIRS[BAD][1], UNDECODABLE, "truncated", id="truncated"),
        pytest.param(b"", PAIRS[BAD][1], UNDECODABLE, "empty", id="empty"),
        pytest.param(b"<html>404</html>", PAIRS[BAD][1], UNDECODABLE, "not an image", id="not an image"),
        pytest.param(png_bomb(60_000), PAIRS[BAD][1], OVER_LIMIT, "bomb", id="bomb"),
        pytest.param(b"", b"", UNDECODABLE, "empty", id="both empty"),
        pytest.param(PAIRS[BAD][0], b"", BAD_TARGET, "annotation: an empty file", id="no annotation"),
        pytest.param(PAIRS[BAD][0], LABELS, BAD_TARGET, "56x40 pixels, its image has 64x64", id="other size"),
    ],
)
def test_a_broken_record_is_skipped_with_its_reason_and_harms_no_other(
    root: Path,
    tmp_path: Path,
    backbone: FrozenBackbone,
    clean,
    jpg: bytes,
    png: bytes,
    code: int,
    reason: str,
) -> None:
    write_split(root, "training", {BAD: (jpg, png)})
    path, summary = run(root, tmp_path / "stores", backbone, **SETTINGS)
    left_out = skipped(path)
    assert set(left_out) == {(BAD, 0), (BAD, 1)} == {(key, view) for key, view, _ in summary.skipped}
    assert all(found == code and reason in text for found, text in left_out.values())
    assert row_digests(path) == {row: digest for row, digest in clean.items() if row[0] != BAD}
    assert verify_store(path, full=True).ok


@pytest.mark.parametrize(
    ("image", "hw"),
    [
        pytest.param(
            encoded(Image.fromarray(made_image(1, (40, 56))).convert("CMYK"), "JPEG"), (40, 56), id="cmyk"
        ),
        pytest.param(encoded(made_image(1, (40, 56))[..., 0], "JPEG"), (40, 56), id="gray"),
        pytest.param(turned(6), (56, 40), id="exif"),
        pytest.param(gray16(), (40, 56), id="16 bit"),
        pytest.param(encoded(made_image(1, (1, 1)), "JPEG"), (1, 1), id="1x1"),
        pytest.param(encoded(made_image(1, (1, 300)), "JPEG"), (1, 300), id="a line"),
    ],
)
def test_odd_images_are_stored(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, clean, image: bytes, hw: tuple[int, int]
) -> None:
    write_split(root, "training", {BAD: (image, encoded(made_labels(0, hw), "PNG"))})
    path, summary = run(root, tmp_path / "stores", backbone, **SETTINGS)
    assert (summary.rows_written, summary.skipped) == (18, [])
    rows = row_digests(path)
    assert {row: digest for row, digest in rows.items() if row[0] != BAD}.items() <= clean.items()


class Tampered:
    """A data set whose files are not what they were when it was listed."""

    def __init__(self, dataset: Dataset, read_source: Callable[[int], bytes]) -> None:
        self._dataset, self.read_source = dataset, read_source

    def __getattr__(self, name: str) -> object:
        return getattr(self._dataset, name)


def other_pixels(key: str) -> bytes:
    """An image file as long as the record's own, with other pixels."""
    length = len(PAIRS[key][0])
    hw = made_labels(0, (64, 64)).shape
    data = encoded(made_image(12345, hw), "JPEG", quality=60)
    return data + b"\0" * (length - len(data))  # what follows the end of a JPEG is ignored


def test_a_source_replaced_by_one_of_the_same_length_and_time_is_refused_on_resume(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_order, "IMAGE_VIEWS", 1)
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path / "stores", Stopping(backbone, tmp_path / "stores", 3, after_shards=3), **SETTINGS)
    store = next((tmp_path / "stores").iterdir())
    assert store_status(store).missing  # some rows of the second view are still to come
    path = root / "images" / "training" / f"{BAD}.jpg"
    before = path.stat()
    path.write_bytes(other_pixels(BAD))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    with pytest.raises(IdentityError, match=BAD):
        run(root, tmp_path / "stores", backbone, **SETTINGS)
    path.write_bytes(PAIRS[BAD][0])
    assert run(root, tmp_path / "stores", backbone, **SETTINGS)[1].shards > 0


def test_a_source_that_changes_between_its_views_is_refused(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views of one record that are not filled side by side."""
    monkeypatch.setattr(batch_order, "IMAGE_VIEWS", 1)
    dataset = open_dataset("ade20k", root)
    reads: dict[int, int] = {}

    def read(index: int) -> bytes:
        reads[index] = reads.get(index, 0) + 1
        is_changed = dataset.records[index].key == BAD and reads[index] > 1
        return other_pixels(BAD) if is_changed else dataset.read_source(index)

    with pytest.raises(IdentityError, match=f"{BAD}.*sha256"):
        run(Tampered(dataset, read), tmp_path / "stores", backbone, workers=1, **SETTINGS)


@pytest.mark.parametrize("together", [1, 2])
def test_a_source_is_read_once_for_its_views_and_the_rows_are_the_same(
    root: Path,
    tmp_path: Path,
    backbone: FrozenBackbone,
    clean: dict[Row, str],
    together: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_order, "IMAGE_VIEWS", together)
    dataset = open_dataset("ade20k", root)
    reads: Counter[int] = Counter()

    def read(index: int) -> bytes:
        reads[index] += 1
        return dataset.read_source(index)

    path, _ = run(Tampered(dataset, read), tmp_path / "stores", backbone, workers=1, **SETTINGS)
    # One shard holds the last record's first view and the second views of three records.
    assert sorted(reads.values()) == ([1] * 6 + [2] * 3 if together == 2 else [2] * 9)
    assert row_digests(path) == clean


@pytest.mark.parametrize(("change", "found"), [("longer", r"\(bytes\)"), ("gone", "no file")])
def test_a_source_that_is_not_as_planned_names_its_record(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, change: str, found: str
) -> None:
    dataset, path = open_dataset("ade20k", root), root / "images" / "training" / f"{BAD}.jpg"
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(IdentityError, match=f"{BAD}.*{found}"):
        run(dataset, tmp_path / "stores", backbone, **SETTINGS)
    assert not list((tmp_path / "stores").rglob("*.partial"))


def test_an_image_of_another_size_than_its_header_promised_is_a_data_error(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, clean
) -> None:
    dataset = open_dataset("ade20k", root)
    index = [record.key for record in dataset.records].index(BAD)

    def read(asked: int) -> bytes:
        data = dataset.read_source(asked)
        if asked != index:
            return data
        smaller = encoded(made_image(3, (16, 16)), "JPEG")
        return smaller + b"\0" * (len(data) - len(smaller))

    path, _ = run(Tampered(dataset, read), tmp_path / "stores", backbone, **SETTINGS)
    assert {code for code, _ in skipped(path).values()} == {WRONG_SIZE}
    assert row_digests(path) == {row: digest for row, digest in clean.items() if row[0] != BAD}


def test_too_many_broken_records_stop_and_a_higher_limit_continues(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, clean
) -> None:
    broken = sorted(PAIRS)[:4]
    write_split(root, "training", {key: (b"broken", PAIRS[key][1]) for key in broken})
    with pytest.raises(TooManyFailed, match=r"3 records .* at most 2") as caught:
        run(root, tmp_path / "stores", backbone, max_failed=2, **SETTINGS)
    assert set(caught.value.failed) < set(broken) and "not an image" in str(caught.value)
    store = next((tmp_path / "stores").iterdir())
    assert not store_status(store).complete and not list(store.rglob("*.partial"))
    done = set(store_status(store).missing)
    with pytest.raises(TooManyFailed):  # records skipped by finished shards still count
        run(root, tmp_path / "stores", backbone, max_failed=3, **SETTINGS)
    assert len(store_status(store).missing) <= len(done)
    path, summary = run(root, tmp_path / "stores", backbone, max_failed=4, **SETTINGS)
    assert {key for key, _ in skipped(path)} == set(broken) >= {key for key, _, _ in summary.skipped}
    assert row_digests(path) == {row: digest for row, digest in clean.items() if row[0] not in broken}


def spoiled(backbone: FrozenBackbone, value: float, level: str) -> Wrapped:
    """A backbone that fails on one row: that of its third call."""
    calls = []

    def change(name: str, x: torch.Tensor) -> torch.Tensor:
        if name == level:
            calls.append(name)
            if len(calls) == 3:
                x[0, 0, 0, 0] = value
        return x

    return Wrapped(backbone, change)


@pytest.mark.parametrize(
    ("codec", "value", "code"),
    [
        ("int8", float("nan"), NON_FINITE),
        ("int8", float("inf"), NON_FINITE),
        ("float16", float("-inf"), NON_FINITE),
        ("float16", 70000.0, OVER_LIMIT),
    ],
)
def test_features_that_no_store_can_hold_are_skipped(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, codec: str, value: float, code: int
) -> None:
    path, summary = run(
        root,
        tmp_path / "a",
        spoiled(backbone, value, "p4"),
        workers=1,
        codec=codec,
        batch_rows=1,
        shard_rows=4,
    )
    (row, (found, reason)) = next(iter(skipped(path).items()))
    assert found == code and reason.endswith("in p4") and len(summary.skipped) == 1
    expected = row_digests(run(root, tmp_path / "b", backbone, codec=codec)[0])
    del expected[row]
    assert row_digests(path) == expected
    assert verify_store(path, full=True).ok


def failing(dataset: Dataset, failures: dict[str, list[OSError]]) -> Tampered:
    """Reads of a record fail as often as there are errors for it."""

    def read(index: int) -> bytes:
        errors = failures.get(dataset.records[index].key)
        if errors:
            raise errors.pop()
        return dataset.read_source(index)

    return Tampered(dataset, read)


def test_transient_disk_errors_do_not_skip_a_record(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, clean
) -> None:
    failures = {BAD: [OSError(errno.EIO, "EIO"), OSError(errno.ESTALE, "ESTALE")]}
    path, summary = run(
        failing(open_dataset("ade20k", root), failures), tmp_path / "stores", backbone, **SETTINGS
    )
    assert not summary.skipped and row_digests(path) == clean


def test_a_disk_that_keeps_failing_stops_and_records_nothing_about_the_record(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, clean
) -> None:
    failures = {BAD: [OSError(errno.EIO, "input/output error")] * 9}
    with pytest.raises(OSError, match="input/output error"):
        run(failing(open_dataset("ade20k", root), failures), tmp_path / "stores", backbone, **SETTINGS)
    store = next((tmp_path / "stores").iterdir())
    assert not store_status(store).skipped and not list(store.rglob("*.partial"))
    path, _ = run(root, tmp_path / "stores", backbone, **SETTINGS)
    assert row_digests(path) == clean


class FailingWrites(Files):
    """Writes of chunks fail, beginning with the n-th, a given number of times."""

    def __init__(self, code: int, first: int, times: int) -> None:
        self._code, self._first, self._times, self._seen = code, first, times, 0

    def write(self, fd: int, parts, offset: int) -> int:
        self._seen += 1
        if self._first <= self._seen < self._first + self._times:
            raise OSError(self._code, os.strerror(self._code))
        return super().write(fd, parts, offset)


def test_a_shard_whose_files_fail_once_is_retried(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, clean, caplog: pytest.LogCaptureFixture
) -> None:
    path, summary = run(
        root, tmp_path / "stores", backbone, files=FailingWrites(errno.EIO, 60, 1), **SETTINGS
    )
    assert "retrying the shard" in caplog.text
    assert summary.rows_written == 18 and row_digests(path) == clean
    assert not list(path.rglob("*.partial")) and verify_store(path, full=True).ok


@pytest.mark.parametrize(("code", "times"), [(errno.ENOSPC, 1), (errno.EIO, 100_000)])
def test_a_full_or_broken_disk_stops_and_the_rest_is_done_later(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, clean, code: int, times: int
) -> None:
    with pytest.raises(OSError) as caught:
        run(root, tmp_path / "stores", backbone, files=FailingWrites(code, 60, times), **SETTINGS)
    assert caught.value.errno == code
    path, _ = run(root, tmp_path / "stores", backbone, **SETTINGS)
    assert row_digests(path) == clean and verify_store(path, full=True).ok


def test_an_error_of_the_device_records_nothing(
    root: Path, tmp_path: Path, backbone: FrozenBackbone, clean
) -> None:
    def out_of_memory(level: str, x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        run(root, tmp_path / "stores", Wrapped(backbone, out_of_memory), **SETTINGS)
    store = next((tmp_path / "stores").iterdir())
    assert not store_status(store).skipped and not list(store.rglob("*.partial"))
    assert row_digests(run(root, tmp_path / "stores", backbone, **SETTINGS)[0]) == clean


def test_a_validation_split_keeps_the_place_of_broken_records(
    tmp_path: Path, backbone: FrozenBackbone
) -> None:
    pairs = make_pairs(6, "validation")
    write_split(tmp_path / "clean", "validation", pairs)
    expected = row_digests(run(tmp_path / "clean", tmp_path / "a", backbone, split="validation")[0])
    first, *_, last = sorted(pairs)
    write_split(tmp_path / "clean", "validation", {first: (b"", pairs[first][1]), last: (b"", b"")})
    path, _ = run(tmp_path / "clean", tmp_path / "b", backbone, split="validation")
    assert set(skipped(path)) == {(first, 0), (last, 0)}
    assert row_digests(path) == {row: d for row, d in expected.items() if row[0] not in (first, last)}
