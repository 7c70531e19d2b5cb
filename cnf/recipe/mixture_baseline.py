"""The Gaussian mixture that a flow has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cnf.flows import Base, ContaminatedBase
from cnf.flows.mixtures import fitted_mixture, mixture_base
from cnf.recipe.defaults import (
    LARGE_COMPONENTS,
    MIN_GAIN,
    MIXTURE_ITERATIONS,
    MIXTURE_ROWS_A_COMPONENT,
    SMALL_COMPONENTS,
)
from cnf.recipe.gaussian_mixtures import rows_for_mixture
from cnf.rows import Rows, weighted_nll


@dataclass(frozen=True)
class Candidate:
    """A base, its number of components, and its held-out NLL in nats per row, in the data's units."""

    base: Base
    components: int
    nll: float


class MixtureBaseline:
    """Gaussian mixtures of the training rows; the held-out rows choose the number of components.

    Args:
        train: training rows in model coordinates.
        valid: held-out rows in model coordinates.
        ladj: log-Jacobian of the held-out rows, () or (rows,).
        seed: seed of expectation-maximization, and of the subsample if there are many rows.
        most: largest number of components.
    """

    def __init__(
        self,
        train: Rows,
        valid: Rows,
        ladj: Tensor,
        *,
        seed: int,
        most: int,
    ) -> None:
        self.train, self.valid, self.ladj = train, valid, ladj
        self.seed = seed
        self.rows = rows_for_mixture(train.x, train.weights, seed)
        self.most = min(most, len(self.rows) // MIXTURE_ROWS_A_COMPONENT)
        self.found: list[Candidate] = []

    def fit(self) -> MixtureBaseline:
        """Fit the small mixtures."""
        for components in SMALL_COMPONENTS:
            if components <= self.most:
                self._fit(components)
        return self

    def fit_largest(self) -> None:
        """Fit the largest mixture that the number of rows supports."""
        components = min(LARGE_COMPONENTS, self.most)
        if self.found and components > self.found[-1].components:
            self._fit(components)

    @property
    def best(self) -> Candidate | None:
        """The mixture with the smallest held-out NLL; None if there are too few rows for any."""
        return min(self.found, key=lambda candidate: candidate.nll, default=None)

    @property
    def extrapolated_nll(self) -> float:
        """Extrapolated NLL of a large mixture, if further components gain as much as the last ones."""
        if len(self.found) < 2:
            return float("inf")
        before, last = (candidate.nll for candidate in self.found[-2:])
        return 2 * last - before

    def best_if_better_than(self, nll: float) -> Base | None:
        """The best mixture, if its held-out NLL is below `nll` by `MIN_GAIN`; the large one is fitted
        first if its extrapolated NLL is low enough."""
        if nll - self.extrapolated_nll > MIN_GAIN:
            self.fit_largest()
        return self.best.base if self.best is not None and nll - self.best.nll > MIN_GAIN else None

    def _fit(self, components: int) -> None:
        try:
            model = fitted_mixture(
                self.rows, components, seed=self.seed, iterations=MIXTURE_ITERATIONS
            )
        except ValueError:  # the rows are too far apart for a covariance
            return
        plain = mixture_base(model, self.train.x.dtype, self.train.x.device)
        tried = [
            Candidate(base, components, self._nll(base))
            for base in (plain, ContaminatedBase(plain))
        ]
        self.found.append(min(tried, key=lambda candidate: candidate.nll))

    @torch.no_grad()
    def _nll(self, base: Base) -> float:
        return weighted_nll(base.log_prob(self.valid.x) + self.ladj, self.valid.weights)[0]
