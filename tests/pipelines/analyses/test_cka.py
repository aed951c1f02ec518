"""CKA: loops, closed forms, invariances, and torch-cka within its traps."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.analyses.similarity.cka import cka, cka_matrix, gram, hsic
from pipelines.analyses.similarity.held_features import GramCollector, batch_rows

Features = np.ndarray


def _hsic1_by_loops(k: Features, l: Features) -> float:  # noqa: E741
    """Song et al. 2012, eq. 4: a sum over all quadruples of different examples."""
    n, total, count = len(k), 0.0, 0
    for a in range(n):
        for b in range(n):
            for c in range(n):
                for d in range(n):
                    if len({a, b, c, d}) == 4:
                        total += k[a, b] * (l[a, b] + l[c, d] - 2 * l[a, c])
                        count += 1
    return total / count


def test_unbiased_hsic_is_the_mean_over_quadruples() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 5)), rng.normal(size=(6, 3))
    assert hsic(gram([x]), gram([y]), "unbiased") == pytest.approx(_hsic1_by_loops(x @ x.T, y @ y.T))


def test_biased_cka_equals_its_form_over_features() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(9, 4)), rng.normal(size=(9, 6))
    xc, yc = x - x.mean(0), y - y.mean(0)
    norm = np.linalg.norm
    expected = norm(xc.T @ yc) ** 2 / (norm(xc.T @ xc) * norm(yc.T @ yc))
    assert cka([gram([x])], [gram([y])], "biased") == pytest.approx(expected, abs=1e-12)


def test_independent_noise_is_near_zero_unbiased_and_near_one_biased() -> None:
    rng = np.random.default_rng(2)
    k, other = (gram([rng.normal(size=(64, 5000))]) for _ in range(2))
    assert abs(cka([k], [other], "unbiased") or 1.0) < 0.05
    assert (cka([k], [other], "biased") or 0.0) > 0.95


def test_a_common_offset_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(16, 40)).astype(np.float32)
    y = (x[:, :10] + 0.5 * rng.normal(size=(16, 10))).astype(np.float32)
    plain = cka([gram([x])], [gram([y])])
    shifted = cka([gram([x + 1000])], [gram([y + 1000])])
    assert plain is not None and shifted == pytest.approx(plain, abs=1e-3)  # float32 of 1000 keeps 6e-5
    assert plain == pytest.approx(cka([gram([x.astype(float)])], [gram([y.astype(float)])]), abs=1e-12)


def test_a_feature_that_does_not_vary_has_no_cka() -> None:
    rng = np.random.default_rng(4)
    constant, other = np.ones((8, 3)), rng.normal(size=(8, 3))
    assert cka([gram([constant])], [gram([other])]) is None
    matrix = cka_matrix([[gram([constant])], [gram([other])]], [[gram([other])]], "unbiased")
    assert matrix[0] == [None] and matrix[1][0] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least 4"):
        hsic(np.ones((3, 3)), np.ones((3, 3)), "unbiased")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100), shift=st.floats(-5, 5))
def test_invariances(seed: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(10, 6)), rng.normal(size=(10, 4))
    y[:, :3] += x[:, :3]
    q, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    same = cka([gram([x])], [gram([y])])
    assert cka([gram([x])], [gram([x @ q])]) == pytest.approx(1.0)
    assert cka([gram([scale * x + shift])], [gram([y])]) == pytest.approx(same, abs=1e-9)
    assert cka([gram([y])], [gram([x])]) == pytest.approx(same, abs=1e-12)
    order = rng.permutation(10)
    assert cka([gram([x[order]])], [gram([y[order]])]) == pytest.approx(same, abs=1e-9)


def test_batches_sum_before_the_ratio_and_drop_a_short_last_one() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(11, 6)).astype(np.float32), rng.normal(size=(11, 4)).astype(np.float32)
    collector = GramCollector(5)
    for one, other in zip(x, y, strict=True):
        collector.add("x", one)
        collector.add("y", other)
    assert collector.rows == 10
    parts = [(gram([x[a : a + 5]]), gram([y[a : a + 5]])) for a in (0, 5)]
    sums = [sum(hsic(part[i], part[j], "unbiased") for part in parts) for i, j in ((0, 1), (0, 0), (1, 1))]
    found = cka(collector.grams["x"], collector.grams["y"])
    expected = sums[0] / np.sqrt(sums[1] * sums[2]) if sums[1] > 0 and sums[2] > 0 else None
    assert found == (None if expected is None else pytest.approx(expected))
    with pytest.raises(ValueError, match="--pool gap"):
        collector.add("x", np.zeros(7, np.float32))


def test_rows_of_a_batch_follow_from_memory() -> None:
    assert batch_rows(512, 1000, 4 * 512 * 1000, None) == 512
    assert batch_rows(512, 1000, 4 * 512 * 1000 - 1, None) == 64
    assert batch_rows(100, 1, 1 << 30, 16) == 16


@pytest.mark.oracle
def test_torch_cka_gives_the_same_minibatch_estimate() -> None:
    """Within its traps: float32, batches that divide the rows, one loader for each model, layers called in
    the order in which they are defined."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset
    from torch_cka import CKA

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 6))
    x = torch.randn(32, 12)

    def loader() -> Any:
        return DataLoader(TensorDataset(x, torch.zeros(32)), batch_size=16)

    oracle = CKA(model, model, "a", "b", model1_layers=["0", "2"], model2_layers=["0", "2"], device="cpu")
    oracle.compare(loader(), loader())
    theirs = oracle.export()["CKA"].numpy()
    collector = GramCollector(16)
    with torch.no_grad():
        for row in x:
            first = model[0](row)
            collector.add("0", first.numpy())
            collector.add("2", model[2](model[1](first)).numpy())
    grams = list(collector.grams.values())
    assert np.array(cka_matrix(grams, grams, "unbiased")) == pytest.approx(theirs, abs=1e-4)
