"""Fits of flows to toys for the pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import cnf
from cnf.datasets import Toy

ROWS, FRESH = 100_000, 5_000


def fitted(toy: Toy, *, seconds: float, seed: int) -> cnf.CNF:
    """A flow fitted to rows of the toy by the default recipe."""
    x = toy.sample(ROWS, torch.Generator().manual_seed(seed))
    flow = cnf.CNF(dim=2)
    cnf.fit(flow, x, seed=seed, seconds=seconds)
    return flow


def fitted_from_noise(toy: Toy, *, seconds: float, seed: int) -> cnf.CNF:
    """The same from a normal base: left to itself `fit` may choose one that is near the data
    already."""
    x = toy.sample(ROWS, torch.Generator().manual_seed(seed))
    flow = cnf.CNF(dim=2, base=cnf.NormalBase(2))
    cnf.fit(flow, x, seed=seed, seconds=seconds)
    return flow


@torch.no_grad()
def print_gap(flow: cnf.CNF, toy: Toy, *, seed: int) -> None:
    """How far the density is from the exact one, on rows that the fit has not seen."""
    x = toy.sample(FRESH, torch.Generator().manual_seed(seed + 1_000_000))
    gap = toy.log_prob(x) - flow.log_prob(x).double()
    error = gap.std() / len(gap) ** 0.5
    print(
        f"{toy.name}: gap to the exact density {gap.mean():.4f} ± {error:.4f} nats, {FRESH:,} fresh points"
    )


def density_at(flow: cnf.CNF, t: float) -> Callable[[Tensor], Tensor]:
    """log p at time t as a function of points."""
    return lambda x: flow.log_prob(x, t=t)
