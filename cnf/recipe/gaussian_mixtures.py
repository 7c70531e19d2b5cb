"""The Gaussian mixture that a flow has to beat, and gives way to where it does not."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnf.flows import Base, ContaminatedBase
from cnf.flows.mixtures import fitted_mixture, mixture_base
from cnf.rows import weighted_nll

# Small mixtures show how fast the likelihood of mixtures rises with their components; the large
# one is fitted where that promises more than the flow has reached.
SMALL = (2, 5, 10, 40)
LARGE = 160
# By so many nats a mixture has to lead at the end: less is no reason to give up a flow that moves.
MIN_GAIN = 0.1
MOST_ROWS = 40_000
ROWS_A_COMPONENT = 25
ITERATIONS = 30


@dataclass(frozen=True)
class Judged:
    """A base, its number of components, and its held-out NLL in nats a row of the data's units."""

    base: Base
    components: int
    nll: float


class MixtureBaseline:
    """Gaussian mixtures of the rows a flow is fitted to, their number of components chosen on
    held-out rows.

    Args:
        y: rows to learn from, in model coordinates (rows, dim).
        weights: of these rows, or None.
        valid: rows to validator by, in model coordinates.
        ladj: log-Jacobian of the valid rows, () or (rows,).
        valid_weights: of these rows, or None.
        seed: of the start of expectation-maximization, and of the rows taken where there are many.
        most: components at most.
        seconds: time for the small mixtures; the large one may take three times as long. None for
            no limit.
    """

    def __init__(
        self,
        y: Tensor,
        weights: Tensor | None,
        valid: Tensor,
        ladj: Tensor,
        valid_weights: Tensor | None,
        *,
        seed: int,
        most: int,
        seconds: float | None,
    ) -> None:
        self.dtype, self.device = y.dtype, y.device
        self.valid, self.ladj, self.valid_weights = valid, ladj, valid_weights
        self.seed = seed
        self.seconds = seconds
        self.rows = chosen_rows(y, weights, seed)
        self.most = min(most, len(self.rows) // ROWS_A_COMPONENT)
        self.found: list[Judged] = []
        self.seconds_a_component = 0.0
        for components in SMALL:
            if components <= self.most and self._affords(components):
                self._fit(components)

    @property
    def best(self) -> Judged | None:
        """The mixture that held-out rows like best; None where rows or time are too few for
        any."""
        return min(self.found, key=lambda judged: judged.nll, default=None)

    @property
    def extrapolated_nll(self) -> float:
        """The NLL that a large mixture may reach, if components go on paying as they have."""
        if len(self.found) < 2:
            return float("inf")
        before, last = (judged.nll for judged in self.found[-2:])
        return 2 * last - before

    def best_if_better_than(self, nll: float) -> Base | None:
        """The best mixture, where its held-out NLL is below `nll` by `MIN_GAIN`; the large one is
        fitted first if it promises that."""
        if nll - self.extrapolated_nll > MIN_GAIN:
            self.fit_largest()
        return self.best.base if self.best is not None and nll - self.best.nll > MIN_GAIN else None

    def fit_largest(self) -> None:
        """Fit the mixture of as many components as rows and time allow."""
        components = min(LARGE, self.most)
        if self.seconds is not None and self.seconds_a_component:
            components = min(components, int(3 * self.seconds / self.seconds_a_component))
        if self.found and components > self.found[-1].components:
            self._fit(components)

    def _affords(self, components: int) -> bool:
        return self.seconds is None or components * self.seconds_a_component <= self.seconds

    def _fit(self, components: int) -> None:
        start = time.perf_counter()
        try:
            model = fitted_mixture(self.rows, components, seed=self.seed, iterations=ITERATIONS)
        except ValueError:  # rows so far out that a Gaussian of them has no width
            return
        plain = mixture_base(model, self.dtype, self.device)
        judged = [
            Judged(base, components, self._nll(base)) for base in (plain, ContaminatedBase(plain))
        ]
        self.found.append(min(judged, key=lambda candidate: candidate.nll))
        self.seconds_a_component = (time.perf_counter() - start) / components

    @torch.no_grad()
    def _nll(self, base: Base) -> float:
        return weighted_nll(base.log_prob(self.valid) + self.ladj, self.valid_weights)[0]


def chosen_rows(y: Tensor, weights: Tensor | None, seed: int) -> np.ndarray:
    """At most `MOST_ROWS` rows in single precision, each as often as its weight says where they
    have any."""
    rows, count = y.float().numpy(force=True), min(len(y), MOST_ROWS)
    if weights is not None:
        return rows[systematic(weights.double().numpy(force=True), count)]
    if len(rows) == count:
        return rows
    return rows[np.random.default_rng(seed).choice(len(rows), count, replace=False)]


def systematic(weights: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Places (count,) of rows, each as often as its weight (rows,) says, but for less than one.

    Example:
        >>> systematic(np.array([1.0, 2.0, 1.0]), 4), systematic(np.ones(4), 2)
        (array([0, 1, 1, 2]), array([0, 2]))
    """
    ends = np.cumsum(weights) / np.sum(weights)
    return np.searchsorted(ends, (np.arange(count) + 0.5) / count).clip(max=len(weights) - 1)
