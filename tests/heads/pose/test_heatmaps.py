"""Target heatmaps and their decoding, by plain loops over mmpose's formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heads.pose.dark import blurred, decode_heatmaps
from heads.pose.heatmaps import cells_of_pixels, pixels_of_cells, target_heatmaps

VIEW, MAP, SIGMA = (128, 256), (32, 64), 2.0


def target_by_loops(keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """generate_udp_gaussian_heatmaps of mmpose for one person."""
    height, width = MAP
    maps, weights = np.zeros((len(keypoints), height, width)), (keypoints[:, 2] > 0).astype(float)
    radius = SIGMA * 3
    for number, (x, y, seen) in enumerate(keypoints):
        if seen < 0.5:
            continue
        mu = np.array([x * (width - 1) / (VIEW[1] - 1), y * (height - 1) / (VIEW[0] - 1)])
        left, top = ((mu + 0.5).astype(np.int64) - radius).astype(int)
        right, bottom = ((mu + 0.5).astype(np.int64) + radius + 1).astype(int)
        if left >= width or top >= height or right < 0 or bottom < 0:
            weights[number] = 0
            continue
        for row in range(max(0, top), min(bottom, height)):
            for column in range(max(0, left), min(right, width)):
                squared = (column - mu[0]) ** 2 + (row - mu[1]) ** 2
                maps[number, row, column] = np.exp(-squared / (2 * SIGMA**2))
    return maps, weights


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-80, 340), st.floats(-80, 210), st.sampled_from([0.0, 1.0, 2.0])),
        min_size=1,
        max_size=4,
    )
)
def test_targets_by_loops(keypoints: list[tuple[float, float, float]]) -> None:
    given_K3 = np.array(keypoints, np.float32)
    maps, weights = target_heatmaps(torch.from_numpy(given_K3)[None], VIEW, MAP)
    expected, expected_weights = target_by_loops(given_K3.astype(np.float64))
    # A place half-way between cells may round to either: then the window moves by a cell of value < 0.02.
    assert np.abs(maps[0].numpy() - expected).max() < 0.02
    centre = given_K3[:, :2] * [63 / 255, 31 / 127] + 0.5
    if np.abs(centre - np.rint(centre)).min() > 1e-3:
        assert np.abs(maps[0].numpy() - expected).max() < 1e-5
        assert np.array_equal(weights[0].numpy(), expected_weights)


def blur_by_loops(heatmap: np.ndarray, kernel: int = 11) -> np.ndarray:
    """OpenCV's GaussianBlur of a kernel's default deviation, zeros beyond, scaled to the old maximum."""
    sigma, half = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8, kernel // 2
    line = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    line /= line.sum()
    out = np.zeros_like(heatmap)
    for row in range(heatmap.shape[0]):
        for column in range(heatmap.shape[1]):
            for dy in range(-half, half + 1):
                for dx in range(-half, half + 1):
                    y, x = row + dy, column + dx
                    if 0 <= y < heatmap.shape[0] and 0 <= x < heatmap.shape[1]:
                        out[row, column] += line[dy + half] * line[dx + half] * heatmap[y, x]
    return out * heatmap.max() / out.max()


def dark_by_loops(heatmap: np.ndarray) -> np.ndarray:
    """refine_keypoints_dark_udp of mmpose for one keypoint."""
    row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
    log = np.pad(np.log(np.clip(blur_by_loops(heatmap), 1e-3, 50.0)), 1, mode="edge")
    y, x = int(row) + 1, int(column) + 1
    dx, dy = 0.5 * (log[y, x + 1] - log[y, x - 1]), 0.5 * (log[y + 1, x] - log[y - 1, x])
    dxx = log[y, x + 1] - 2 * log[y, x] + log[y, x - 1]
    dyy = log[y + 1, x] - 2 * log[y, x] + log[y - 1, x]
    dxy = 0.5 * (
        log[y + 1, x + 1] - log[y, x + 1] - log[y + 1, x] + log[y, x] + log[y, x]
        - log[y, x - 1] - log[y - 1, x] + log[y - 1, x - 1]
    )  # fmt: skip
    hessian = np.array([[dxx, dxy], [dxy, dyy]]) + np.finfo(np.float32).eps * np.eye(2)
    return np.array([column, row]) - np.linalg.inv(hessian) @ np.array([dx, dy])


@pytest.mark.parametrize("seed", range(4))
def test_decoding_by_loops(seed: int) -> None:
    """Of soft peaks with noise, one of them at the edge of the map."""
    draw = np.random.default_rng(seed)
    keypoints = np.column_stack([draw.uniform(0, 255, 3), draw.uniform(0, 127, 3), np.full(3, 2.0)])
    keypoints[0, :2] = 0.3, 126.5
    maps = target_by_loops(keypoints)[0] + 0.05 * draw.random((3, *MAP))
    places, scores = decode_heatmaps(torch.from_numpy(maps.astype(np.float32))[None])
    for number, heatmap in enumerate(maps):
        assert np.allclose(places[0, number].numpy(), dark_by_loops(heatmap), atol=2e-3)
        assert scores[0, number].item() == pytest.approx(heatmap.max(), rel=1e-6)
    soft = blurred(torch.from_numpy(maps)[None])[0].numpy()
    assert np.allclose(soft[1], blur_by_loops(maps[1]))


def test_maps_without_a_peak_score_nothing() -> None:
    maps = torch.stack([torch.zeros(MAP), torch.full(MAP, -1.0)])[None]
    places, scores = decode_heatmaps(maps)
    assert torch.isfinite(places).all() and not scores.any()


def test_outer_centres_meet() -> None:
    corners = torch.tensor([[[0.0, 0.0], [255.0, 127.0]]])
    cells = cells_of_pixels(corners, VIEW, MAP)
    assert cells.tolist() == [[[0, 0], [63, 31]]]
    torch.testing.assert_close(pixels_of_cells(cells, VIEW, MAP), corners)
