"""Feature colours, foreground and neighbours on made materials; padding never changes the fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.analyses.components import component_colours, otsu_threshold
from pipelines.analyses.neighbours import nearest
from pipelines.analyses.sample_rows import cut_to

LAYOUTS = (
    np.array([[0, 0, 1, 1], [1, 2, 2, 0], [2, 0, 1, 1]]),
    np.array([[2, 1, 0, 0], [0, 1, 2, 2], [1, 1, 0, 2]]),
)


def _maps(noise: float = 0.05, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    materials = rng.normal(size=(3, 24))
    return [
        np.moveaxis(materials[layout] + noise * rng.normal(size=(*layout.shape, 24)), -1, 0).astype(
            np.float32
        )
        for layout in LAYOUTS
    ]


def test_components_separate_three_materials() -> None:
    """Colours of one material are nearer to each other than to any of another."""
    colours = np.concatenate([c.reshape(-1, 3) for c in component_colours(_maps())]).astype(float)
    labels = np.concatenate([layout.ravel() for layout in LAYOUTS])
    middles = np.stack([colours[labels == material, :2].mean(0) for material in range(3)])
    nearest_middle = ((colours[:, None, :2] - middles) ** 2).sum(-1).argmin(1)
    assert (nearest_middle == labels).all()


@settings(max_examples=20, deadline=None)
@given(value=st.floats(-1e4, 1e4), down=st.integers(0, 3), right=st.integers(0, 3))
def test_padding_never_changes_the_fit(value: float, down: int, right: int) -> None:
    maps = _maps()
    padded = [np.pad(x, ((0, 0), (0, down), (0, right)), constant_values=value) for x in maps]
    cut = [cut_to(x, 8, (24, 32)) for x in padded]
    for mine, theirs in zip(component_colours(cut), component_colours(maps), strict=True):
        assert np.array_equal(mine, theirs)


def test_foreground_is_one_side_of_the_first_component_and_flips() -> None:
    rng = np.random.default_rng(1)
    x = 0.1 * rng.normal(size=(8, 6, 6))
    x[0, :, :2] += 10.0
    shown, others = (component_colours([x.astype(np.float32)], foreground=f)[0] for f in ("on", "flip"))
    is_black, other_black = (~picture.any(-1) for picture in (shown, others))
    assert not (is_black[:, 2:].all() and other_black[:, 2:].all())
    assert {bool(is_black[:, 2:].all()), bool(other_black[:, 2:].all())} == {True, False}
    assert 1 < otsu_threshold(np.array([0.0, 1.0, 10.0, 11.0])) < 10


def test_position_is_removed_as_the_mean_over_images() -> None:
    maps = _maps()
    position = np.random.default_rng(2).normal(size=maps[0].shape).astype(np.float32) * 50
    plain = component_colours(maps, remove_position=True)
    moved = component_colours([x + position for x in maps], remove_position=True)
    for mine, theirs in zip(plain, moved, strict=True):
        assert np.abs(mine.astype(int) - theirs.astype(int)).max() <= 1
    with pytest.raises(ValueError, match="one size"):
        component_colours([maps[0], maps[1][:, :2]], remove_position=True)


def test_neighbours_are_the_same_material_of_other_records() -> None:
    maps = _maps()
    for y, x in np.ndindex(LAYOUTS[0].shape):
        (found,) = nearest(maps, 0, (int(y), int(x)))
        assert found.place == 1
        assert LAYOUTS[1][found.cell_yx] == LAYOUTS[0][y, x]
        assert found.cosine > 0.9
