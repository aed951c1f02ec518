"""Images decoded in processes of their own: the same views as here, and decoders that crash or hang."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from extract.colour import Colour
from extract.decoder_pool import DecoderPool, decoder_pool
from extract.image_views import render_image
from extract.sources import SourceError, TookTooLong
from extract.view import View
from stores.records import UNDECODABLE, WRONG_SIZE

HW = (48, 64)
MISBEHAVING = """
import os, time
from extract import decoder_process

def hang():
    time.sleep(3600)

render = decoder_process.render_image
decoder_process.render_image = lambda data, *rest: {action}() if data == b"bad" else render(data, *rest)
decoder_process.main()
"""


@pytest.fixture(scope="module")
def data() -> bytes:
    file = io.BytesIO()
    rgb = np.random.default_rng(0).integers(0, 256, (*HW, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(file, "JPEG", quality=95)
    return file.getvalue()


def views() -> list[View]:
    """Whole, and cropped, mirrored, coloured and padded; by factors that no short decimal number holds."""
    colour = Colour(31 / 3, 1.1 / 0.9, True, 2 / 3, -7)
    return [
        View(resized_hw=(32, 43), valid_hw=(32, 43), padded_hw=(32, 64)),
        View(
            resized_hw=(96, 128),
            crop_yx=(5, 9),
            valid_hw=(64, 64),
            padded_hw=(64, 64),
            flip=True,
            colour=colour,
        ),
    ]


def misbehaving(action: str, limit_s: float = 60.0) -> DecoderPool:
    command = (sys.executable, "-c", MISBEHAVING.format(action=action))
    return DecoderPool(limit_s=limit_s, processes=1, command=command)


def test_views_are_those_that_are_rendered_here(data: bytes) -> None:
    for found, expected in zip(
        decoder_pool().render_image(data, HW, views()), render_image(data, HW, views()), strict=True
    ):
        assert found.dtype == np.uint8 and np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("make", "hw", "code", "reason"),
    [
        (lambda data: b"no image", HW, UNDECODABLE, "not an image of a known kind"),
        (lambda data: b"", HW, UNDECODABLE, "an empty file"),
        (lambda data: data[:400], HW, UNDECODABLE, "Truncated"),
        (lambda data: data, (64, 48), WRONG_SIZE, "decodes to 64x48 pixels, its header promised 48x64"),
    ],
)
def test_what_is_wrong_with_an_image_is_told(
    data: bytes, make: Callable[[bytes], bytes], hw: tuple[int, int], code: int, reason: str
) -> None:
    with pytest.raises(SourceError, match=reason) as error:
        decoder_pool().render_image(make(data), hw, views())
    assert error.value.code == code


@pytest.mark.parametrize(
    ("action", "limit_s", "kind", "reason"),
    [
        ("os.abort", 60.0, SourceError, r"the decoder crashed \(signal 6\)"),
        ("hang", 1.0, TookTooLong, "the decoder was not done after 1 s"),
    ],
)
def test_an_image_that_ends_its_decoder_is_refused_and_the_next_is_decoded(
    data: bytes, action: str, limit_s: float, kind: type[SourceError], reason: str
) -> None:
    pool = misbehaving(action, limit_s)
    with pytest.raises(kind, match=reason) as error:
        pool.render_image(b"bad", HW, views())
    assert error.value.code == UNDECODABLE
    assert np.array_equal(pool.render_image(data, HW, views())[1], render_image(data, HW, views())[1])
