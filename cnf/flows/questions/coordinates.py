"""Coordinates in which any columns given any others are nearly standard normal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cnf.flows.mixtures import fitted_mixture
from cnf.transforms.affine import Chain
from cnf.transforms.bounded import Range
from cnf.transforms.conditional import ConditionalMixture
from cnf.transforms.kernels import KERNEL_GAIN
from cnf.transforms.marginals import MarginalTransform

# Numbers of Gaussians, each tried while the one before it gained so many nats a row; no more than
# one for so many rows. Some rows choose among them.
COMPONENTS, GAIN, ROWS_A_COMPONENT = (1, 2, 4, 8, 16, 32, 64), 0.01, 40
ROWS, JUDGES, ITERATIONS, SMALLEST = 10_000, 0.2, 40, 1e-5


@dataclass(frozen=True)
class Coordinates:
    """Each column alone, then a mixture of all of them with the features of the context.

    Attributes:
        marginals: of the numbers, in the units of the data.
        mixture: in the coordinates of `marginals`.
    """

    marginals: MarginalTransform
    mixture: ConditionalMixture

    def condition(self, values: Tensor, free: Tensor, given: Tensor, features: Tensor) -> Tensor:
        """The condition for a choice of columns and given values (rows, 3 · dim + features), in
        float64.

        Args:
            values: numbers in the units of the data (rows, dim), read where they are given.
            free: which columns the density is of (rows, dim).
            given: which columns it is given (rows, dim).
            features: of the context (rows, features).
        """
        y = self.marginals.by_cell(values)[0].where(given, 0.0)
        return torch.cat((free.double(), features.double(), y, given.double()), 1)

    def normalize(self, values: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Free numbers (rows, dim) as z, and the log-Jacobian (rows,) with ½ log 2π for every
        column that is not free."""
        return Chain(self.marginals, self.mixture)(values, condition, self._free(condition))

    def numbers(self, z: Tensor, condition: Tensor) -> Tensor:
        """Free numbers (rows, dim) in the units of the data, zero elsewhere."""
        free = self._free(condition)
        return Chain(self.marginals, self.mixture).inverse(z.double(), condition, free)

    def _free(self, condition: Tensor) -> Tensor:
        return condition[..., : self.mixture.dim] != 0


@torch.no_grad()
def fit_coordinates(
    values: Tensor,
    features: Tensor,
    ranges: Sequence[Range],
    *,
    seed: int,
    components: Iterable[int] = COMPONENTS,
) -> Coordinates:
    """The coordinates in which held-out rows are most likely: linear or Gaussianized columns, and
    the number of Gaussians.

    Args:
        values: numbers in the units of the data (rows, dim).
        features: of the context (rows, features).
        ranges: (lower, upper) of every column, None for no end.
        seed: of every choice.
        components: numbers of Gaussians to try.
    """
    generator = torch.Generator(values.device).manual_seed(seed)
    order = torch.randperm(len(values), generator=generator, device=values.device)[:ROWS]
    values, features = values[order].double(), features[order].double()
    judges = max(1, round(JUDGES * len(order)))
    found: list[tuple[float, Coordinates]] = []
    for kernel_gain in (math.inf, KERNEL_GAIN):
        marginals = MarginalTransform(ranges).to(values.device)
        present, ones = torch.ones_like(values, dtype=torch.bool), torch.ones_like(values[:, 0])
        marginals.fit(values[judges:], present[judges:], ones[judges:], kernel_gain)
        y, log_slope = marginals.by_cell(values)
        score, mixture = _best_mixture(
            torch.cat((y, features), 1), judges, features.shape[1], seed, components
        )
        found.append(
            (score + log_slope[:judges].sum(1).mean().item(), Coordinates(marginals, mixture))
        )
    return max(found, key=lambda pair: pair[0])[1]


def _best_mixture(
    rows: Tensor, judges: int, features: int, seed: int, components: Iterable[int]
) -> tuple[float, ConditionalMixture]:
    """The mixture of the last number of Gaussians that gains enough, and its mean log-density of
    the first rows, the judges."""
    judged, learned = (part.cpu().numpy() for part in (rows[:judges], rows[judges:]))
    best, fitted = -math.inf, None
    for count in components:
        if fitted is not None and count > len(learned) // ROWS_A_COMPONENT:
            break
        model = fitted_mixture(learned, count, seed=seed, iterations=ITERATIONS, smallest=SMALLEST)
        score = model.score(judged)
        if fitted is not None and score < best + GAIN:
            break
        best, fitted = score, model
    assert fitted is not None, "at least one number of components is tried"
    weights, means, covariances = (
        torch.as_tensor(part, device=rows.device)
        for part in (fitted.weights_, fitted.means_, fitted.covariances_)
    )
    return best, ConditionalMixture(weights, means, covariances, features)
