"""Edge cases of each codec; the common contract is tested in tests/contracts/test_codecs.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stores.codecs import codec
from stores.codecs.contract import error_figures
from stores.errors import CodecError

LARGEST_ERROR = {"float16": 0.001, "int8": 0.02, "int4": 0.2}
"""Of normal features, relative to the deviation of a channel."""
TINY = float(np.finfo(np.float32).smallest_normal)


def features(shape, seed=0, scale=3.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


@pytest.mark.parametrize("name", LARGEST_ERROR)
def test_errors_of_normal_features(name):
    assert codec(name).error_figures(features((24, 24, 64)))["worst"] < LARGEST_ERROR[name]


def test_unknown_name_lists_the_known():
    with pytest.raises(CodecError, match="float16, int8, q2, q5"):
        codec("os")


FINITE = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=3, max_dims=4, max_side=5),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


@given(FINITE)
def test_int8_error_is_at_most_half_a_step(x):
    encoded = codec("int8").encode(x)
    scale = np.broadcast_to(encoded["scale"][..., None, None, :], x.shape).astype(np.float64)
    error = np.abs(codec("int8").decode(encoded).astype(np.float64) - x)
    # half a step and the rounding of scale and product; a channel below the normal scales becomes 0
    assert (error <= np.where(scale > 0, scale * (0.5 + 2e-5), 128 * TINY)).all()
    assert np.abs(encoded["q"].astype(int)).max() <= 127
    assert ((encoded["scale"] == 0) | (encoded["scale"] >= TINY)).all()


@given(FINITE)
def test_int8_is_the_written_formula(x):
    """A plain loop over channels in float32, as specified."""
    encoded = codec("int8").encode(x)
    flat, q = np.moveaxis(x, -1, -3), np.moveaxis(encoded["q"], -1, -3)
    for place in np.ndindex(flat.shape[:-2]):
        channel = flat[place]
        scale = np.float32(np.abs(channel).max()) / np.float32(127)
        expected = np.zeros(channel.shape)
        if scale >= TINY:
            expected = np.clip(np.rint(channel / scale), -127, 127)
        else:
            scale = np.float32(0)
        assert encoded["scale"][place] == scale
        np.testing.assert_array_equal(q[place], expected)


def test_int8_ties_go_to_even():
    x = np.array([127, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5], np.float32).reshape(7, 1, 1)
    assert codec("int8").encode(x)["q"].ravel().tolist() == [127, 0, 2, 2, 0, -2, -126]


@pytest.mark.parametrize(
    ("largest", "scale"),
    [
        (127 * TINY, TINY),
        (126 * TINY, 0.0),  # a subnormal scale: flushed to zero on some devices, so on all
        (TINY / 4, 0.0),
        (65504.0, float(np.float32(65504) / np.float32(127))),
        (float(np.finfo(np.float32).max), float(np.finfo(np.float32).max / np.float32(127))),
    ],
)
def test_int8_scale_at_the_ends_of_float32(largest, scale):
    encoded = codec("int8").encode(np.array([largest, -largest], np.float32).reshape(2, 1, 1))
    assert encoded["scale"].tolist() == [np.float32(scale)]
    assert encoded["q"].ravel().tolist() == ([127, -127] if scale else [0, 0])


def test_int8_scale_is_per_row_frame_and_channel():
    x = np.ones((2, 3, 4, 4, 5), np.float32)
    x[1, 2, :, :, 3] = 254
    scale = codec("int8").encode(x)["scale"]
    assert scale.shape == (2, 3, 5) and scale[1, 2, 3] == 2 and (scale > 1).sum() == 1


WIDE = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 70)),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


@given(st.one_of(FINITE, WIDE))
def test_int4_is_the_written_formula(x):
    """A plain loop over channels, cells and blocks in float32, as specified, with decoding."""
    encoded = codec("int4").encode(x)
    codec("int4").check(encoded)
    decoded = codec("int4").decode(encoded)
    channels = x.shape[-1]
    for place in np.ndindex(x.shape[:-3]):
        scale = np.abs(x[place]).max(axis=(0, 1)) / np.float32(1785)
        scale[scale < TINY] = 0
        np.testing.assert_array_equal(encoded["scale"][place], scale)
        for cell in np.ndindex(x.shape[-3:-1]):
            for start in range(0, channels, 32):
                block = range(start, min(start + 32, channels))
                y = [x[place][cell][c] / scale[c] if scale[c] else np.float32(0) for c in block]
                step = min(max(np.ceil(max(abs(v) for v in y) / np.float32(7)), 1), 255)
                assert encoded["block"][place][cell][start // 32] == step - 1
                for c, v in zip(block, y, strict=True):
                    code = int(np.clip(np.rint(v / np.float32(step)), -7, 7))
                    byte = int(encoded["q"][place][cell][c // 2])
                    assert (byte >> 4 if c % 2 else byte & 15) == code % 16
                    assert decoded[place][cell][c] == np.float32(code * step) * scale[c]


@given(WIDE)
def test_int4_error_is_at_most_half_a_step(x):
    encoded = codec("int4").encode(x)
    steps = np.repeat(encoded["block"].astype(np.float64) + 1, 32, axis=-1)[..., : x.shape[-1]]
    scale = encoded["scale"].astype(np.float64)[..., None, None, :]
    error = np.abs(codec("int4").decode(encoded).astype(np.float64) - x)
    # half a step, and the rounding of 255 * 7 steps; a channel below the normal scales becomes 0
    assert (error <= np.where(scale > 0, steps * scale * (0.5 + 1e-4), 1786 * TINY)).all()


def test_int4_ties_go_to_even():
    x = np.zeros((2, 1, 7), np.float32)
    x[0] = 1785  # scales become 1; the block of the other cell has step 2
    x[1, 0] = [14, 1, 3, 5, -1, -3, -13]
    encoded = codec("int4").encode(x)
    assert encoded["scale"].tolist() == [1] * 7 and encoded["block"].ravel().tolist() == [254, 1]
    assert codec("int4").decode(encoded)[1, 0].tolist() == [14, 0, 4, 4, 0, -4, -12]
    assert encoded["q"][1, 0].tolist() == [0x07, 0x22, 0xE0, 0x0A]  # low half first; zeros beside the last


@pytest.mark.parametrize(
    ("largest", "scale"),
    [
        (1785 * TINY, TINY),
        (1784 * TINY, 0.0),  # a subnormal scale
        (TINY / 4, 0.0),
        (65504.0, float(np.float32(65504) / np.float32(1785))),
        (float(np.finfo(np.float32).max), float(np.finfo(np.float32).max / np.float32(1785))),
    ],
)
def test_int4_scale_at_the_ends_of_float32(largest, scale):
    made = codec("int4")
    encoded = made.encode(np.array([largest, -largest], np.float32).reshape(2, 1, 1))
    made.check(encoded)
    assert encoded["scale"].tolist() == [np.float32(scale)]
    assert encoded["q"].ravel().tolist() == ([0x07, 0x09] if scale else [0, 0])
    assert encoded["block"].ravel().tolist() == ([254, 254] if scale else [0, 0])
    decoded = made.decode(encoded).ravel()
    np.testing.assert_allclose(decoded, [largest, -largest] if scale else [0, 0], rtol=3e-7)


def test_int4_keeps_small_channels_beside_large_ones():
    """With one scale a block, channels a thousand times smaller than the largest would be lost."""
    x = features((16, 16, 40), scale=1.0)
    x[..., 3] *= 1000
    figures = error_figures(x, codec("int4").decode(codec("int4").encode(x)))
    assert figures["worst"] < 0.15


def test_int4_takes_17_bits_for_4_values():
    parts = codec("int4").parts(128)
    assert parts["q"].width + parts["block"].width == 128 * 17 // 32


@given(FINITE)
def test_float16_is_numpy_rounding(x):
    if np.abs(x).max() >= 65520:  # the first value that rounds to infinity
        with pytest.raises(CodecError, match="65504"):
            codec("float16").encode(x)
    else:
        np.testing.assert_array_equal(codec("float16").encode(x)["q"], x.astype(np.float16))


@pytest.mark.parametrize("value", [65504.0, -65504.0, 65519.9, 6e-8, 0.0, -0.0])
def test_float16_at_its_ends(value):
    made = codec("float16")
    encoded = made.encode(np.full((1, 1, 1), value, np.float32))
    made.check(encoded)
    assert made.decode(encoded).item() == np.float16(value)


def test_error_figures_leave_outliers_out_of_the_deviation():
    """A few tokens at 50 sigma increase the error of all others, which a larger deviation must not hide."""
    x = features((64, 64, 2), scale=1.0)
    assert codec("int8").error_figures(x)["worst"] < 0.012
    x[0, 0, 1] = 50
    figures = codec("int8").error_figures(x)
    assert figures["worst"] > 0.1 and figures["worst_channel"] == 1


@pytest.mark.parametrize("name", ["int8", "float16", "int4"])
def test_error_figures_of_channels_constant_up_to_rounding_are_zero(name):
    """Such as the maps of a black image."""
    noise = np.random.default_rng(0).normal(size=(4, 8, 8, 3))
    x = (np.array([1.5, 300, 0.01]) * (1 + 3e-7 * noise)).astype(np.float32)
    assert codec(name).error_figures(x)["worst"] == 0


def test_error_figures_of_constant_channels_are_zero():
    x = np.full((4, 4, 2), 0.3, np.float32)
    assert codec("int8").error_figures(x)["worst"] == 0
