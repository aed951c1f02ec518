"""q<error>: its rule, its error, its fit, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from stores.codecs import codec
from stores.codecs.contract import FittedCodec, error_figures
from stores.codecs.q import LARGEST, ROTATION_GRID, Rotated
from stores.errors import CodecError

CHANNELS = 6


def correlated(rows: int, channels: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """float32 (rows, 8, 8, channels): a few causes behind all channels, of very different sizes."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).standard_normal((3, channels))
    causes = rng.standard_normal((rows, 8, 8, 3)) @ mixing
    sizes = np.logspace(-2, 2, channels)
    return ((causes + 0.3 * rng.standard_normal((rows, 8, 8, channels))) * sizes + 5 * sizes).astype(
        np.float32
    )


def fitted(name: str, x: npt.NDArray[np.float32]) -> Rotated:
    made = codec(name)
    assert isinstance(made, FittedCodec)
    found = made.with_state(made.fit(x))
    assert isinstance(found, Rotated)
    return found


@pytest.mark.parametrize("percent", [1, 2, 5, 10])
def test_every_channel_errs_by_what_is_asked(percent: int) -> None:
    made, others = fitted(f"q{percent}", correlated(40, 24)), correlated(40, 24, seed=1)
    figures = made.error_figures(others)
    assert figures["median"] == pytest.approx(percent / 100, rel=0.05)
    assert figures["worst"] < 1.2 * percent / 100


def test_it_is_the_written_rule() -> None:
    """Cell by cell, in plain Python numbers."""
    made, x = fitted("q2", correlated(8, CHANNELS)), correlated(1, CHANNELS, seed=2)[0]
    state = {name: array.tolist() for name, array in made.fitted.items()}
    encoded = made.encode(x)
    decoded = made.decode(encoded)
    for y, column in np.ndindex(2, 3):
        cell = x[y, column]
        standard = [float(t) for t in (cell - made.fitted["mean"]) / made.fitted["deviation"]]
        tokens = [round(t * 2**16) / 2**16 for t in standard]
        for k in range(CHANNELS):
            z = sum(t * state["rotation"][c][k] for c, t in enumerate(tokens))
            code = int(encoded["q"][y, column, k]) + 255 * int(encoded["q_high"][y, column, k])
            assert code == round(z / state["step"][0])
        codes = encoded["q"][y, column].astype(int) + 255 * encoded["q_high"][y, column].astype(int)
        for c in range(CHANNELS):
            turned = sum(int(code) * state["rotation"][c][k] for k, code in enumerate(codes))
            value = state["mean"][c] + state["deviation"][c] * state["step"][0] * turned
            assert decoded[y, column, c] == np.float32(value)


BOUNDED = st.floats(-30, 30, width=32)


@settings(deadline=None, max_examples=100)
@given(some.arrays(np.float32, (3, 4, CHANNELS), elements=BOUNDED), st.sampled_from([1, 2, 20]))
def test_no_value_is_further_away_than_half_a_step_of_every_coefficient(
    x: npt.NDArray[np.float32], percent: int
) -> None:
    """In deviations: codes are rounded by half a step each, and a rotation keeps the length of that."""
    made = fitted(f"q{percent}", correlated(8, CHANNELS))
    x = x * made.fitted["deviation"] + made.fitted["mean"]
    error = (made.decode(made.encode(x)).astype(np.float64) - x) / made.fitted["deviation"]
    half = float(made.step) / 2 * CHANNELS**0.5
    assert np.linalg.norm(error, axis=-1).max() <= half * 1.001 + 1e-3 * np.abs(x).max() * 1e-3


@settings(deadline=None, max_examples=50)
@given(some.arrays(np.float32, (2, 3, CHANNELS), elements=BOUNDED))
def test_what_was_decoded_is_encoded_to_the_same_codes(x: npt.NDArray[np.float32]) -> None:
    made = fitted("q5", correlated(8, CHANNELS))
    once = made.encode(x * made.fitted["deviation"] + made.fitted["mean"])
    again = made.encode(made.decode(once))
    for kind in once:
        np.testing.assert_array_equal(once[kind], again[kind])


def test_the_rotation_is_orthogonal_and_that_of_the_correlation() -> None:
    x = correlated(40, 24)
    made = fitted("q2", x)
    rotation = made.fitted["rotation"].astype(np.float64)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(24), atol=24 / ROTATION_GRID)
    variances = np.var(
        ((x.reshape(-1, 24) - made.fitted["mean"]) / made.fitted["deviation"]) @ rotation, axis=0
    )
    assert (np.diff(variances) < 1e-2).all() and variances[:3].sum() > 0.8 * variances.sum()
    turned = np.corrcoef(
        (((x.reshape(-1, 24) - made.fitted["mean"]) / made.fitted["deviation"]) @ rotation).T
    )
    assert np.abs(turned - np.eye(24)).max() < 0.1


def test_a_fit_is_the_same_again_and_in_any_order_of_its_rows() -> None:
    x, made = correlated(20, 16), codec("q2")
    assert isinstance(made, FittedCodec)
    first, again, reversed_ = made.fit(x), made.fit(x.copy()), made.fit(x[::-1])
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
        if name in ("rotation", "step"):
            np.testing.assert_allclose(array, reversed_[name], atol=1e-5)


@pytest.mark.parametrize("tokens, is_rotated", [(4 * 64 - 1, False), (4 * 64, True)])
def test_few_tokens_are_not_turned(tokens: int, is_rotated: bool) -> None:
    x = np.random.default_rng(0).standard_normal((1, tokens, 1, 64)).astype(np.float32)
    rotation = codec("q2").fit(x)["rotation"]  # type: ignore[attr-defined]
    assert np.array_equal(rotation, np.eye(64)) != is_rotated


def test_outlier_tokens_leave_the_error_of_others_as_it_is() -> None:
    x = correlated(40, 12)
    x[::40, 0, 0] *= 100
    made = fitted("q2", x)
    assert error_figures(x, made.decode(made.encode(x)))["median"] < 0.022


def test_constant_channels_may_vary_in_other_rows() -> None:
    x = correlated(20, 8)
    x[..., 3] = 0
    made = fitted("q2", x)
    x[0, 0, 0, 3] = 0.5
    decoded = made.decode(made.encode(x))
    assert decoded[0, 0, 0, 3] == pytest.approx(0.5, abs=0.01) and np.abs(decoded[1, ..., 3]).max() < 0.01
    alone = fitted("q2", np.zeros((9, 2, 2, 3), np.float32))
    assert np.abs(alone.decode(alone.encode(np.zeros((2, 2, 3), np.float32)))).max() == 0


def test_codes_take_two_digits_and_no_more() -> None:
    made = fitted("q1", correlated(8, CHANNELS))
    one = np.zeros((1, 1, CHANNELS), np.float32)
    largest = LARGEST * float(made.step)
    along = made.fitted["rotation"][:, 0].astype(np.float64)
    for factor, is_held in ((0.9999, True), (-0.9999, True), (1.0001, False), (-1.0001, False)):
        standard = factor * largest * along
        one[0, 0] = standard * made.fitted["deviation"] + made.fitted["mean"]
        if not is_held:
            with pytest.raises(CodecError, match="beyond 16 bits of codes"):
                made.encode(one)
            continue
        encoded = made.encode(one)
        made.check(encoded)
        assert abs(int(encoded["q_high"][0, 0, 0])) == 127
        error = (made.decode(encoded)[0, 0] - one[0, 0]) / made.fitted["deviation"]
        assert np.abs(error).max() < 0.05


@pytest.mark.parametrize("number", [0, 51, 1000])
def test_other_errors_are_refused(number: int) -> None:
    expected = "unknown codec 'q0'" if number == 0 else f"q{number}: expected an error of 1 to 50 percent"
    with pytest.raises(CodecError, match=expected):
        codec(f"q{number}")


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"mean": np.zeros(5, np.float32)}, "deviation is float32"),
        ({"deviation": np.zeros(CHANNELS, np.float32)}, "not above 0"),
        ({"rotation": np.full((CHANNELS, CHANNELS), np.nan, np.float32)}, "rotation is float32"),
        ({"rotation": np.full((CHANNELS, CHANNELS), 0.7, np.float32)}, "columns of rotation"),
        ({"step": np.array([1], np.float32)}, "step 1, expected 0.069"),
        ({"extra": np.zeros(1, np.float32)}, "extra"),
    ],
)
def test_a_state_that_no_fit_made_is_refused(change: dict[str, Any], problem: str) -> None:
    state = {**fitted("q2", correlated(8, CHANNELS)).fitted, **change}
    with pytest.raises(CodecError, match=f"q2: not a state of this codec: .*{problem}"):
        codec("q2").with_state(state)  # type: ignore[attr-defined]


def test_features_of_other_channels_are_refused() -> None:
    with pytest.raises(CodecError, match="features of 5 channels, it was fitted to 6"):
        fitted("q2", correlated(8, CHANNELS)).encode(np.zeros((2, 2, 5), np.float32))
