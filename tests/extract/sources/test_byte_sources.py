"""Decoding: odd but usable images become RGB, broken ones a data error with a stable reason."""

from __future__ import annotations

import errno
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract.sources.byte_sources import (
    FileSource,
    SourceError,
    decode_image,
    decode_indices,
    image_size,
    retried,
)
from extract.sources.tar_index import tar_members
from stores.format.row_table import OVER_LIMIT, UNDECODABLE
from tests.extract.datasets.made_ade20k import encoded, made_image, write_tar

RGB = made_image(7, (40, 56))


class Bytes:
    """A ByteSource in memory."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def read(self, limit: int | None = None) -> bytes:
        return self.data if limit is None else self.data[:limit]


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(RGB, "JPEG", quality=100, subsampling=0, exif=exif)


def png_bomb(side: int) -> bytes:
    """A PNG that says it is side x side, with next to no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 16))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def gray16() -> bytes:
    return encoded(RGB[..., 0].astype(np.uint16) << 8 | 0x12, "PNG")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(encoded(RGB, "PNG"), RGB, id="rgb"),
        pytest.param(encoded(RGB[..., 0], "PNG"), np.repeat(RGB[..., :1], 3, axis=2), id="gray"),
        pytest.param(gray16(), np.repeat(RGB[..., :1], 3, axis=2), id="gray of 16 bits"),
        pytest.param(encoded(np.dstack([RGB, RGB[..., :1]]), "PNG"), RGB, id="alpha is dropped"),
        pytest.param(encoded(RGB[:1, :1], "PNG"), RGB[:1, :1], id="1x1"),
        pytest.param(encoded(RGB, "WEBP", lossless=True), RGB, id="webp"),
        pytest.param(encoded(RGB, "TIFF"), RGB, id="tiff"),
    ],
)
def test_becomes_rgb(data: bytes, expected: np.ndarray) -> None:
    image = decode_image(data)
    assert image.dtype == np.uint8
    assert np.array_equal(image, expected)
    assert image_size(Bytes(data)) == expected.shape[:2]


def test_palette_and_cmyk_keep_their_colours() -> None:
    palette = Image.fromarray(RGB).quantize(64)
    assert np.array_equal(decode_image(encoded(palette, "PNG")), np.asarray(palette.convert("RGB")))
    see_through = encoded(palette, "PNG", transparency=3)
    assert np.array_equal(decode_image(see_through), np.asarray(palette.convert("RGB")))
    cmyk = decode_image(encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=100, subsampling=0))
    assert np.abs(cmyk.astype(int) - RGB).max() <= 6  # JPEG at its best quality


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(1, RGB), (2, RGB[:, ::-1]), (3, RGB[::-1, ::-1]), (6, np.rot90(RGB, -1)), (8, np.rot90(RGB))],
)
def test_exif_orientation_is_applied(orientation: int, expected: np.ndarray) -> None:
    data = turned(orientation)
    assert np.abs(decode_image(data).astype(int) - expected).max() <= 6
    assert image_size(Bytes(data)) == expected.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["TIFF", "TIFF, compressed", "PNG", "WEBP"])
def test_sides_of_every_kind_are_planned_as_they_are_decoded(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {
        "TIFF": {"tiffinfo": {0x0112: orientation}},
        "TIFF, compressed": {"tiffinfo": {0x0112: orientation}, "compression": "tiff_lzw"},
        "PNG": {"exif": exif},
        "WEBP": {"exif": exif, "lossless": True},
    }
    data = encoded(RGB, kind.partition(",")[0], **options[kind])
    swapped = np.transpose(RGB, (1, 0, 2))
    of_orientation = (RGB, RGB[:, ::-1], RGB[::-1, ::-1], RGB[::-1])
    of_orientation += (swapped, swapped[:, ::-1], swapped[::-1, ::-1], swapped[::-1])
    expected = of_orientation[orientation - 1]
    assert np.array_equal(decode_image(data), expected)
    assert image_size(Bytes(data)) == expected.shape[:2]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"", UNDECODABLE, id="empty"),
        pytest.param(b"GIF89a not an image at all", UNDECODABLE, id="not an image"),
        pytest.param(encoded(RGB, "JPEG")[:700], UNDECODABLE, id="truncated jpeg"),
        pytest.param(encoded(RGB, "PNG")[:-300], UNDECODABLE, id="truncated png"),
        pytest.param(encoded(RGB[..., 0].astype(np.float32), "TIFF"), UNDECODABLE, id="floating point"),
        pytest.param(png_bomb(9_000), OVER_LIMIT, id="over our limit"),
        pytest.param(png_bomb(60_000), OVER_LIMIT, id="decompression bomb"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_broken_images_are_data_errors_with_the_same_reason_in_every_run(data: bytes, code: int) -> None:
    reasons = set()
    for _ in range(2):
        with pytest.raises(SourceError) as caught:
            decode_image(data)
        assert caught.value.code == code
        reasons.add(caught.value.reason)
    assert len(reasons) == 1
    assert " at 0x" not in reasons.pop()  # the address of an object would differ from run to run


def test_a_header_longer_than_the_first_read_is_found() -> None:
    profile = bytes(200_000)  # a colour profile in front of the size
    data = encoded(RGB, "JPEG", icc_profile=profile)
    assert image_size(Bytes(data)) == RGB.shape[:2]


@pytest.mark.parametrize("bits", [1, 4])
def test_label_maps_of_fewer_bits_are_refused(bits: int) -> None:
    labels = Image.fromarray(np.eye(8, dtype=np.uint8))
    data = encoded(labels.convert("1"), "PNG") if bits == 1 else _four_bit_gray()
    with pytest.raises(SourceError, match="8-bit gray"):
        decode_indices(data)


def _four_bit_gray() -> bytes:
    data = bytearray(encoded(np.zeros((2, 2), np.uint8), "PNG"))
    data[24] = 4  # Pillow writes no such file; its decoder would stretch the values to 0..255
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def test_palette_label_maps_keep_their_indices() -> None:
    indices = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = Image.fromarray(indices, mode="P")
    image.putpalette(list(range(255, -1, -1)) * 3)
    assert np.array_equal(decode_indices(encoded(image, "PNG")), indices)


def test_transient_environment_errors_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extract.sources.byte_sources._PAUSES_S", (0, 0, 0))
    failures = [OSError(errno.EIO, "input/output error"), OSError(errno.ESTALE, "stale file handle")]

    def read() -> bytes:
        if failures:
            raise failures.pop()
        return b"data"

    assert retried(read, "record") == b"data"
    with pytest.raises(OSError, match="input/output error"):
        retried(lambda: (_ for _ in ()).throw(OSError(errno.EIO, "input/output error")), "record")
    with pytest.raises(FileNotFoundError):
        retried(lambda: FileSource(Path("/nowhere"), 0).read(), "record")


def test_members_of_a_tar_are_read_where_they_stand(tmp_path: Path) -> None:
    long_name = "folder/" * 30 + "b.png"
    tar = write_tar(tmp_path / "a.tar", [("a.jpg", b"first"), (long_name, b"second " * 1000), ("c.txt", b"")])
    members = tar_members(tar)
    assert [(m.name, m.size) for m in members] == [("a.jpg", 5), (long_name, 7000), ("c.txt", 0)]
    assert [m.read() for m in members] == [b"first", b"second " * 1000, b""]
    assert members[1].read(6) == b"second"
