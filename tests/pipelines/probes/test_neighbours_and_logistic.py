"""k-NN and logistic regression of probes against scikit-learn, and rules that it leaves open."""

import numpy as np
import pytest
import torch

from pipelines.probes.logistic import DINOV2_GRID, NINE, choose_c, fit
from pipelines.probes.neighbours import neighbour_votes

CPU = torch.device("cpu")
CLASSES = 4


def clusters(rows: int, channels: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features around one centre a class, and their labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, rows)
    labels[:classes] = range(classes)
    centres = np.random.default_rng(99).normal(0, 1, (classes, channels))
    return (centres[labels] + generator.normal(0, 1.3, (rows, channels))).astype(np.float32), labels


@pytest.mark.parametrize("blocks", [1 << 26, 700])
def test_votes_are_scikit_learns(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of queries too; scikit-learn sums the same weights in float64."""
    from sklearn.neighbors import KNeighborsClassifier

    monkeypatch.setattr("pipelines.probes.neighbours._BLOCK_VALUES", blocks)
    (x, labels), (queries, _) = clusters(300, 16, CLASSES, 0), clusters(50, 16, CLASSES, 1)
    votes = neighbour_votes(
        *map(torch.from_numpy, (x, labels, queries)), counts=(1, 7, 40), num_classes=CLASSES
    )
    for k, found in votes.items():
        oracle = KNeighborsClassifier(
            k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07)
        )
        expected = oracle.fit(x, labels).predict_proba(queries)
        np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


def test_equally_near_rows_go_by_their_number() -> None:
    x = torch.eye(2).repeat_interleave(4, 0)  # four rows of each of two directions
    labels = torch.tensor([3, 2, 1, 0, 0, 1, 2, 3])
    votes = neighbour_votes(x, labels, torch.tensor([[1.0, 0.0]]), counts=(1, 2, 3), num_classes=4)
    assert [found[0].tolist() for found in votes.values()] == [
        [0, 0, 0, 1],
        [0, 0, 0.5, 0.5],
        pytest.approx([0, 1 / 3, 1 / 3, 1 / 3]),
    ]


def test_small_temperatures_stay_finite() -> None:
    x, labels = clusters(40, 8, CLASSES, 0)
    votes = neighbour_votes(
        *map(torch.from_numpy, (x, labels, x)), counts=(5,), num_classes=CLASSES, temperature=1e-3
    )[5]
    assert votes.isfinite().all() and (votes.argmax(1).numpy() == labels).all()


@pytest.mark.parametrize("classes", [2, CLASSES])
@pytest.mark.parametrize("c", [0.01, 1.0])
def test_both_engines_find_one_classifier(classes: int, c: float) -> None:
    """The minimum is unique; two classes have one row of weights in scikit-learn, and here."""
    x, labels = clusters(200, 12, classes, 2)
    theirs, ours = (fit(x, labels, c, engine, CPU) for engine in ("sklearn", "torch"))
    assert ours.weight_KC.shape == theirs.weight_KC.shape
    scale = np.abs(theirs.weight_KC).max()
    np.testing.assert_allclose(ours.weight_KC, theirs.weight_KC, atol=1e-4 * scale)
    np.testing.assert_allclose(ours.bias_K, theirs.bias_K, atol=1e-4)
    np.testing.assert_allclose(ours.probabilities(x, classes), theirs.probabilities(x, classes), atol=1e-4)


def test_a_fit_is_the_minimum_of_its_objective() -> None:
    """By autograd: C x the sum of cross entropies + |w|^2 / 2 has no slope there."""
    x, labels = clusters(120, 6, 3, 3)
    found = fit(x, labels, 0.5, "torch", CPU)
    weight = torch.tensor(found.weight_KC, requires_grad=True)
    bias = torch.tensor(found.bias_K, requires_grad=True)
    scores = torch.from_numpy(x).double() @ weight.T + bias
    loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels), reduction="sum")
    (0.5 * loss + weight.square().sum() / 2).backward()
    assert max(weight.grad.abs().max(), bias.grad.abs().max()) < 1e-4


def test_c_is_chosen_on_a_tenth() -> None:
    x, labels = clusters(200, 12, 3, 4)
    best, scores = choose_c(x, labels, (1e-6, 1e-2, 1.0), "torch", CPU)
    assert list(scores) == [1e-6, 1e-2, 1.0] and scores[best] == max(scores.values()) > 0.5
    assert best == min(c for c, score in scores.items() if score == scores[best])
    assert len(NINE) == 9 and set(NINE) <= set(DINOV2_GRID) and len(DINOV2_GRID) == 45
    assert DINOV2_GRID[0] == pytest.approx(1e-6) and DINOV2_GRID[-1] == pytest.approx(1e5)


def test_classes_that_do_not_occur() -> None:
    x, labels = clusters(60, 6, 2, 5)
    found = fit(x, np.where(labels == 0, 1, 3), 1.0, "torch", CPU).probabilities(x, 5)
    assert found.shape == (60, 5) and not found[:, [0, 2, 4]].any()
    np.testing.assert_allclose(found.sum(1), 1)
    with pytest.raises(ValueError, match="needs rows of two classes"):
        fit(x, np.zeros(60, np.int64), 1.0, "torch", CPU)
