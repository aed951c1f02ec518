"""The device codecs write the bytes of the numpy codecs, eager and compiled."""

import numpy as np
import pytest
import torch

from extract.codecs import on_device as device_codec
from stores.codecs import codec
from stores.errors import CodecError

TINY = float(np.finfo(np.float32).smallest_normal)


def special_rows() -> np.ndarray:
    """float32 (1, 4, 4, 12): one difficult channel each."""
    rng = np.random.default_rng(0)
    channels = rng.standard_normal((12, 16)).astype(np.float32)
    channels[0] = 0
    channels[1] = np.arange(-8, 8) + 0.5  # ties of rint, once the scale is 1
    channels[1, 0] = 127
    channels[2] = 65504
    channels[3] *= TINY  # a scale below the smallest normal number
    channels[4] = TINY * 127
    channels[5] = np.nextafter(np.float32(TINY * 127), np.float32(0))
    channels[6] *= np.float32(1e-45)
    channels[7, 1:] *= np.float32(1e-30)
    channels[8] = -0.0
    channels[9] *= np.float32(3e38) / np.abs(channels[9]).max()
    channels[10] = np.float32(1) / np.arange(3, 19, dtype=np.float32)
    channels[11, 3] = 1e5
    return channels.T.reshape(1, 4, 4, 12)


def random_rows() -> np.ndarray:
    rng = np.random.default_rng(1)
    size = 10.0 ** rng.uniform(-6, 4, (3, 2, 1, 1, 40))
    return (rng.standard_normal((3, 2, 24, 32, 40)) * size).astype(np.float32)


def block_rows() -> np.ndarray:
    """float32 (4, 8, 6, 45): two blocks, the last of 13 channels; quotients on and beside ties of int4."""
    rng = np.random.default_rng(3)
    x = rng.integers(-14, 15, (4, 8, 6, 45)).astype(np.float32) / 2 * rng.integers(1, 256, (4, 8, 6, 1))
    x[:, 0, 0] = 1785  # so that scales before the next line are 1
    x[1] = np.nextafter(x[1], np.float32(np.inf))
    x[2] = np.nextafter(x[2], np.float32(-np.inf))
    return (x * np.float32(2.0) ** rng.integers(-20, 20, 45)).astype(np.float32)


def tie_rows() -> np.ndarray:
    """Quotients on and beside every tie, for many scales."""
    rng = np.random.default_rng(2)
    scale = np.float32(2.0) ** rng.integers(-20, 20, 64).astype(np.float32) * rng.uniform(1, 2, 64).astype(
        np.float32
    )
    codes = np.concatenate([np.arange(-126.5, 127), [127.0]]).astype(np.float32)
    x = codes[:, None] * scale
    x = np.stack([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, np.float32(-np.inf))])
    return x[None].astype(np.float32)


ROWS = {"special": special_rows, "random": random_rows, "ties": tie_rows, "blocks": block_rows}


def assert_same_bytes(name: str, x: np.ndarray, encode) -> None:
    expected = codec(name).encode(x)
    found = encode(name, torch.from_numpy(x))
    assert found.keys() == expected.keys()
    for array, values in expected.items():
        ours = found[array].numpy()
        assert ours.dtype == values.dtype and ours.shape == values.shape
        assert ours.tobytes() == np.ascontiguousarray(values).tobytes(), array


@pytest.mark.parametrize("name", ["int8", "int4"])
@pytest.mark.parametrize("rows", ROWS)
def test_codes_and_scales_equal_numpy(rows, name):
    assert_same_bytes(name, ROWS[rows](), device_codec.encode)


@pytest.mark.parametrize("name", ["int8", "int4", "float16"])
def test_decoded_values_equal_numpy(name):
    assert_same_values(name, random_rows())
    assert_same_values(name, random_rows()[..., :32])  # whole blocks of int4


def assert_same_values(name: str, x: np.ndarray) -> None:
    encoded = codec(name).encode(x)
    found = device_codec.decode(name, {part: torch.from_numpy(array) for part, array in encoded.items()})
    assert found.dtype == torch.float32
    assert found.numpy().tobytes() == codec(name).decode(encoded).tobytes()
    assert not np.shares_memory(found.numpy(), encoded["q"])


@pytest.mark.parametrize("rows", ["random"])
def test_float16_equals_numpy(rows):
    assert_same_bytes("float16", ROWS[rows](), device_codec.encode)


def test_float16_features_are_encoded_as_their_float32_values():
    x = torch.from_numpy(random_rows()).half()
    ours = device_codec.encode("int8", x)
    expected = codec("int8").encode(x.float().numpy())
    assert ours["q"].numpy().tobytes() == expected["q"].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["int8", "int4"])
@pytest.mark.parametrize("rows", ROWS)
def test_compiled_code_equals_numpy(rows, name):
    """Slow: the compiler takes half a minute."""
    compiled = torch.compile(device_codec.device_codec(name).encode)
    assert_same_bytes(name, ROWS[rows](), lambda _, x: compiled(x))


@pytest.mark.slow
def test_compiled_decoding_equals_numpy():
    """Slow, as above; training may compile what it does to a batch."""
    x = random_rows()[..., :32]
    encoded = codec("int4").encode(x)
    parts = {part: torch.from_numpy(array) for part, array in encoded.items()}
    assert (
        torch.compile(device_codec.device_codec("int4").decode)(parts).numpy().tobytes()
        == codec("int4").decode(encoded).tobytes()
    )


def test_checks_find_the_rows_to_skip():
    x = torch.ones(5, 2, 2, 3)
    x[1, 0, 0, 0], x[2, 1, 1, 2], x[3, 0, 1, 1] = torch.nan, torch.inf, 70000.0
    in_int8, in_float16 = (
        [found.tolist() for found in device_codec.checks(name, x)] for name in ("int8", "float16")
    )
    assert in_int8 == [[True, False, False, True, True]] * 2
    assert in_float16 == [[True, False, False, True, True], [True, False, False, False, True]]
    assert torch.isinf(device_codec.encode("float16", x)["q"][3]).any(), "numpy's codec would raise here"


def test_an_unknown_codec_is_named():
    with pytest.raises(CodecError, match=r"unknown codec 'int3'; available: float16, int8, q2, q5"):
        device_codec.encode("int3", torch.zeros(1, 1, 1, 1))
