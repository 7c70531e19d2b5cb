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
    """A base, its number of components, and its held-out NLL in nats a row of the data's units."""

    base: Base
    components: int
    nll: float


class MixtureBaseline:
    """Gaussian mixtures of the rows of a fit, their number of components chosen on held-out rows.

    Args:
        train: rows to learn from, in model coordinates.
        valid: rows to judge by, in model coordinates.
        ladj: log-Jacobian of the held-out rows, () or (rows,).
        seed: of expectation-maximization, and of the rows taken where there are many.
        most: components at most.
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
        """Fit the mixture of as many components as rows allow."""
        components = min(LARGE_COMPONENTS, self.most)
        if self.found and components > self.found[-1].components:
            self._fit(components)

    @property
    def best(self) -> Candidate | None:
        """The mixture with the smallest held-out NLL; None where rows allow none."""
        return min(self.found, key=lambda candidate: candidate.nll, default=None)

    @property
    def extrapolated_nll(self) -> float:
        """The NLL that a large mixture may reach, if components go on paying as they have."""
        if len(self.found) < 2:
            return float("inf")
        before, last = (candidate.nll for candidate in self.found[-2:])
        return 2 * last - before

    def best_if_better_than(self, nll: float) -> Base | None:
        """The best mixture, where its held-out NLL is below `nll` by `MIN_GAIN`; the large one is
        fitted first if it promises that."""
        if nll - self.extrapolated_nll > MIN_GAIN:
            self.fit_largest()
        return self.best.base if self.best is not None and nll - self.best.nll > MIN_GAIN else None

    def _fit(self, components: int) -> None:
        try:
            model = fitted_mixture(
                self.rows, components, seed=self.seed, iterations=MIXTURE_ITERATIONS
            )
        except ValueError:  # rows so far out that a Gaussian of them has no width
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
