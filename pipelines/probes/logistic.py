"""Multinomial logistic regression on pooled features: scikit-learn's, or the same objective on a device.

DINOv2's protocol (facebookresearch/dinov2@b8931f7 dinov2/eval/log_regression.py): float64, no penalty on the
bias, C chosen on a tenth of the training rows, then all of them. Objective: C x sum of cross entropies +
|w|^2 / 2. Letters in array names: N rows, C channels, K classes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Engine = Literal["sklearn", "torch"]
SKLEARN_VALUES = 50_000_000
"""Features, rows times width, that scikit-learn fits by default; more are fitted on the device."""
DINOV2_GRID = tuple(float(c) for c in 10.0 ** np.linspace(-6, 5, 45))
NINE = DINOV2_GRID[::5]
"""Every fifth of DINOv2's."""
GRIDS = {"nine": NINE, "dinov2": DINOV2_GRID}
MAX_ITERATIONS = 1000
TOLERANCE = 1e-12
_ROWS_AT_ONCE = 1 << 14
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """A fitted classifier of the classes that occurred; of two one row of weights, the second one's."""

    classes_K: npt.NDArray[np.int64]
    weight_KC: Float64
    bias_K: Float64
    iterations: int

    def probabilities(self, x_NC: npt.NDArray[Any], num_classes: int) -> Float64:
        """float64 (N, num_classes), 0 for classes that did not occur."""
        scores = x_NC.astype(np.float64) @ self.weight_KC.T + self.bias_K
        if scores.shape[1] == 1:
            scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
        scores -= scores.max(1, keepdims=True)
        exact = np.exp(scores)
        found = np.zeros((len(x_NC), num_classes))
        found[:, self.classes_K] = exact / exact.sum(1, keepdims=True)
        return found


def chosen_engine(values: int) -> Engine:
    """Which fits so many features by default.

    >>> chosen_engine(400 * 1280), chosen_engine(1_281_167 * 1024)
    ('sklearn', 'torch')
    """
    return "sklearn" if values <= SKLEARN_VALUES else "torch"


def choose_c(
    x_NC: npt.NDArray[np.float32],
    labels_N: npt.NDArray[np.int64],
    grid: Sequence[float],
    engine: Engine,
    device: torch.device,
) -> tuple[float, dict[float, float]]:
    """The C of the highest top-1 on a held-out tenth of the rows, the smaller of equal ones; and all scores.

    The tenth is the first of torch's permutation from seed 0, as DINOv2's. With fewer than ten rows, or
    classes that the rest lacks, they are judged on the training rows.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(labels_N), generator=generator).numpy()
    held, kept = order[: len(order) // 10], order[len(order) // 10 :]
    if not len(held) or len(np.unique(labels_N[kept])) < 2:
        held, kept = order, order
    right: dict[float, float] = {}
    start: Fit | None = None
    for c in sorted(grid):
        start = fit(x_NC[kept], labels_N[kept], c, engine, device, start=start)
        named = start.probabilities(x_NC[held], int(labels_N.max()) + 1).argmax(1)
        right[c] = float((named == labels_N[held]).mean())
        logger.info("C %.3g: top-1 %.2f on the held-out tenth", c, 100 * right[c])
    return max(right, key=lambda c: (right[c], -c)), right


def fit(
    x_NC: npt.NDArray[np.float32],
    labels_N: npt.NDArray[np.int64],
    c: float,
    engine: Engine,
    device: torch.device,
    *,
    start: Fit | None = None,
) -> Fit:
    """The classifier of the classes that occur, in their order, for one C.

    Args:
        engine: sklearn, on the CPU; torch, which evaluates the objective on `device` in blocks of rows.
        start: of another C, from which `torch` begins.

    Raises ValueError for rows of one class.
    """
    classes_K, numbers_N = np.unique(labels_N, return_inverse=True)
    if len(classes_K) < 2:
        raise ValueError("a logistic regression needs rows of two classes or more")
    if engine == "sklearn":
        weight_KC, bias_K, iterations = _by_sklearn(x_NC, numbers_N, c)
    else:
        weight_KC, bias_K, iterations = _Objective(x_NC, numbers_N, c, device).minimum(start)
    return Fit(classes_K=classes_K, weight_KC=weight_KC, bias_K=bias_K, iterations=iterations)


def _by_sklearn(
    x_NC: npt.NDArray[np.float32], labels_N: npt.NDArray[np.int64], c: float
) -> tuple[Float64, Float64, int]:
    from sklearn.exceptions import ConvergenceWarning  # late: a second to load, and for this engine alone
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, tol=TOLERANCE, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        # A tolerance of 1e-12 is below what float64 reaches: each fit ends where it can improve no more.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x_NC.astype(np.float64), labels_N)
    return model.coef_, model.intercept_, int(model.n_iter_.max())


class _Objective:
    """Mean cross entropy + |w|^2 / (2 C N) and its gradient: C N times smaller than the objective above, as
    scikit-learn scales it."""

    def __init__(
        self,
        x_NC: npt.NDArray[np.float32],
        labels_N: npt.NDArray[np.int64],
        c: float,
        device: torch.device,
    ) -> None:
        self._x_NC = torch.from_numpy(np.ascontiguousarray(x_NC)).to(device)
        self._labels_N = torch.from_numpy(labels_N).to(device)
        classes = int(labels_N.max()) + 1
        self._columns = 1 if classes == 2 else classes
        self._penalty = 1 / (c * len(labels_N))

    def minimum(self, start: Fit | None) -> tuple[Float64, Float64, int]:
        from scipy.optimize import minimize  # late: for this engine alone

        shape = (self._columns, self._x_NC.shape[1] + 1)
        first = np.zeros(shape)
        if start is not None and start.weight_KC.shape == (shape[0], shape[1] - 1):
            first = np.concatenate([start.weight_KC, start.bias_K[:, None]], axis=1)
        found = minimize(
            self._value_and_gradient,
            first.reshape(-1),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": MAX_ITERATIONS,
                "maxls": 50,
                "gtol": TOLERANCE,
                "ftol": 64 * np.finfo(np.float64).eps,
            },
        )
        best = found.x.reshape(shape)
        return best[:, :-1], best[:, -1], int(found.nit)

    def _value_and_gradient(self, flat: Float64) -> tuple[float, Float64]:
        device, count = self._x_NC.device, len(self._labels_N)
        parameters = torch.from_numpy(flat).to(device).reshape(self._columns, -1)
        weight_KC, bias_K = parameters[:, :-1], parameters[:, -1]
        value = torch.zeros((), dtype=torch.float64, device=device)
        slope = torch.zeros_like(parameters)
        for x_NC, labels_N in zip(
            torch.split(self._x_NC, _ROWS_AT_ONCE), torch.split(self._labels_N, _ROWS_AT_ONCE), strict=True
        ):
            exact_NC = x_NC.double()
            loss, error_NK = self._errors(exact_NC @ weight_KC.T + bias_K, labels_N)
            value += loss
            slope[:, :-1] += error_NK.T @ exact_NC
            slope[:, -1] += error_NK.sum(0)
        value = value / count + self._penalty / 2 * weight_KC.square().sum()
        slope /= count
        slope[:, :-1] += self._penalty * weight_KC
        return float(value), slope.reshape(-1).cpu().numpy()

    def _errors(self, scores_NK: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        """The summed cross entropy, and its gradient with respect to the scores."""
        if self._columns == 1:
            is_one_N1 = labels_N[:, None].double()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(scores_NK, is_one_N1, reduction="sum")
            return loss, scores_NK.sigmoid() - is_one_N1
        loss = torch.nn.functional.cross_entropy(scores_NK, labels_N, reduction="sum")
        error_NK = scores_NK.softmax(1)
        error_NK[torch.arange(len(labels_N), device=labels_N.device), labels_N] -= 1
        return loss, error_NK
