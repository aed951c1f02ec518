"""Centred kernel alignment (CKA) of Gram matrices: a similarity of two feature spaces over the same examples.

CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)). Unbiased: HSIC1 of Song et al. 2012, as in Nguyen et al. 2020
(arXiv 2010.15327, eq. 3); biased: HSIC0 of Kornblith et al. 2019. Of several batches HSIC is summed before
the ratio is taken. With 64 independent examples of 5000 Gaussian features the biased CKA is 0.987, the
unbiased 0.017: features here have far more values than examples, so unbiased is the default.

Letters in array names: n examples, D values of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

Estimator = Literal["unbiased", "biased"]
Matrix = npt.NDArray[np.float64]
LEAST_ROWS = 4
"""HSIC1 divides by n - 3."""


def gram(chunks_nD: Iterable[npt.NDArray[np.floating]]) -> Matrix:
    """X X' in float64 of features centred first, (n, n), summed over chunks of their columns.

    Centring changes no estimate, but without it a common offset of 1000 makes float64 wrong by 15 %: raw
    outputs of Swin stages have such offsets.
    """
    total: Matrix | None = None
    for chunk in chunks_nD:
        x_nD = chunk.astype(np.float64)
        x_nD -= x_nD.mean(0)
        product = x_nD @ x_nD.T
        total = product if total is None else total + product
    if total is None:
        raise ValueError("no features to compare: pass at least one chunk")
    return total


def hsic(k_nn: Matrix, l_nn: Matrix, estimator: Estimator) -> float:
    """Of two Gram matrices over the same examples. Raises ValueError for fewer than four."""
    n = len(k_nn)
    if n < LEAST_ROWS:
        raise ValueError(f"{n} rows: CKA needs at least {LEAST_ROWS}")
    if estimator == "biased":
        return float((_centred(k_nn) * l_nn).sum() / (n - 1) ** 2)
    k, other = (each - np.diag(np.diag(each)) for each in (k_nn, l_nn))
    k_sums, l_sums = k.sum(1), other.sum(1)
    cross = k_sums.sum() * l_sums.sum() / ((n - 1) * (n - 2)) - 2 * (k_sums @ l_sums) / (n - 2)
    return float(((k * other).sum() + cross) / (n * (n - 3)))


def _centred(k_nn: Matrix) -> Matrix:
    rows: Matrix = k_nn - k_nn.mean(0)
    both: Matrix = rows - rows.mean(1, keepdims=True)
    return both


def cka(first: Sequence[Matrix], second: Sequence[Matrix], estimator: Estimator = "unbiased") -> float | None:
    """Of two features, given by a Gram matrix a batch; None where one of them does not vary.

    Unbiased values may lie a little below 0.

    >>> k = gram([np.array([[0.0], [1.0], [2.0], [4.0], [7.0]])])
    >>> round(cka([k], [4 * k]) or 0.0, 6)
    1.0
    """
    shared, own, others = (
        sum(hsic(k, l, estimator) for k, l in zip(one, other, strict=True))  # noqa: E741
        for one, other in ((first, second), (first, first), (second, second))
    )
    return shared / math.sqrt(own * others) if own > 0 and others > 0 else None


def cka_matrix(
    rows: Sequence[Sequence[Matrix]], columns: Sequence[Sequence[Matrix]], estimator: Estimator
) -> list[list[float | None]]:
    """CKA of every feature of `rows` with every one of `columns`."""
    return [[cka(row, column, estimator) for column in columns] for row in rows]
