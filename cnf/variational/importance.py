"""Importance weights of a fitted density with respect to its target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cnf.flows.questions.importance import pareto_k
from cnf.variational.reverse_kl import LogDensity, Sampler

DRAWS_AT_ONCE = 20_000


@dataclass(frozen=True)
class Importance:
    """Draws x ~ q with their weights w = p̃(x) / q(x), up to the normalizer of p̃.

    Attributes:
        x: draws (n, dim).
        log_weights: log p̃ − log q (n,), in nats, float64.
    """

    x: Tensor
    log_weights: Tensor

    @property
    def lower_bound(self) -> float:
        """The evidence lower bound: the mean of log w, which is log Z − KL(q ‖ p), in nats."""
        return self.log_weights.mean().item()

    @property
    def lower_bound_error(self) -> float:
        """The standard error of `lower_bound`."""
        return (self.log_weights.std() / len(self.log_weights) ** 0.5).item()

    @property
    def log_normalizer(self) -> float:
        """The log of the mean weight: an estimate of log Z in nats, reliable if `pareto_k` < 0.7."""
        return (self.log_weights.logsumexp(0) - math.log(len(self.log_weights))).item()

    @property
    def weights(self) -> Tensor:
        """w normalized to sum to one, (n,)."""
        return self.log_weights.softmax(0)

    @property
    def efficiency(self) -> float:
        """The effective sample size (Kish) as a share of the draws, (Σw)² / (n Σw²), in (0, 1]."""
        return 1 / (len(self.log_weights) * self.weights.square().sum().item())

    @cached_property
    def pareto_k(self) -> float:
        """The shape of the weights' tail; the weights are reliable below 0.7 (see `pareto_k`)."""
        return pareto_k(self.log_weights)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Weighted means and standard deviations (dim,) of the target, in float64."""
        x = self.x.to(self.weights.dtype)
        mean = self.weights @ x
        return mean, (self.weights @ (x - mean).square()).sqrt()


@torch.no_grad()
def importance_sample(
    flow: Sampler, log_density: LogDensity, n: int, *, generator: torch.Generator | None = None
) -> Importance:
    """Draw n rows from a flow and weight them by the target: w = p̃(x) / q(x).

    Args:
        flow: the proposal q, a `CNF` or a `PlanarFlow`.
        log_density: log p̃ (*batch,) of x (*batch, dim), in nats, up to a constant.
        n: number of draws.
        generator: of the draws.

    Raises:
        ValueError: for fewer than one draw.
    """
    if n < 1:
        raise ValueError(f"n: expected at least one draw; got {n}")
    draws, weights = [], []
    for size in (
        *[DRAWS_AT_ONCE] * (n // DRAWS_AT_ONCE),
        *[n % DRAWS_AT_ONCE] * (n % DRAWS_AT_ONCE > 0),
    ):
        x, log_q = flow.sample_and_log_prob((size,), generator=generator)
        draws.append(x)
        weights.append(log_density(x).double() - log_q.double())
    return Importance(torch.cat(draws), torch.cat(weights))
