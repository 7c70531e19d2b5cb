"""The choice of the base density of angles and of points on a sphere."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

import cnf.recipe.defaults as defaults
from cnf.fields import Geometry
from cnf.fields.geometry import unit
from cnf.flows import (
    Base,
    UniformCircleBase,
    UniformSphereBase,
    VonMisesBase,
    VonMisesFisherBase,
)
from cnf.rows import Rows, weighted_nll

Mixture = VonMisesBase | VonMisesFisherBase
Components = tuple[Tensor, Tensor, Tensor]


def circle_base(train: Rows, valid: Rows, seed: int) -> Base:
    """Uniform angles, or a mixture of wide von Mises densities if its held-out likelihood is
    significantly better."""
    angles = train.x.shape[1]
    chord = Geometry(0, angles=angles).chord
    return _choose(
        UniformCircleBase(angles), VonMisesBase, _angular_moments, chord, train, valid, seed
    )


def sphere_base(train: Rows, valid: Rows, seed: int) -> Base:
    """Uniform points, or a mixture of wide von Mises-Fisher densities if its held-out likelihood is
    significantly better."""
    return _choose(
        UniformSphereBase(), VonMisesFisherBase, _vector_moments, lambda x: x, train, valid, seed
    )


def _choose(
    uniform: Base,
    kind: type[Mixture],
    moments: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    chord: Callable[[Tensor], Tensor],
    train: Rows,
    valid: Rows,
    seed: int,
) -> Base:
    """Add components until they stop gaining on held-out rows; return the mixture if it is significantly
    better than the uniform density."""
    if train.context is not None or len(train) < defaults.PERIODIC_ROWS:
        return uniform
    rows, best, least = some_rows(train, seed), uniform, math.inf
    for count in defaults.PERIODIC_COMPONENTS:
        if count * defaults.PERIODIC_ROWS_A_COMPONENT > len(train):
            break
        weights, centers, spreads = fitted_components(kind, moments, chord, rows, count, seed)
        found = [
            kind(weights, centers, width * spreads).to(train.x)
            for width in defaults.PERIODIC_WIDTHS
        ]
        nlls = [weighted_nll(base.log_prob(valid.x), valid.weights)[0] for base in found]
        if min(nlls) > least - defaults.PERIODIC_CLOSE:
            break
        least = min(nlls)
        best = found[nlls.index(least)]
    gains = best.log_prob(valid.x) - uniform.log_prob(valid.x)
    nll, error = weighted_nll(gains, valid.weights)
    return best if -nll - defaults.BASE_ERRORS * error > defaults.BASE_GAIN else uniform


def some_rows(train: Rows, seed: int) -> Rows:
    """Rows in float64 for a mixture fit: all of them, or a draw by weight."""
    most = defaults.PERIODIC_MOST_ROWS
    weights = train.weights
    if len(train) <= most:
        return replace(train, x=train.x.double())
    generator = torch.Generator(train.x.device).manual_seed(seed)
    chances = torch.ones(len(train), device=train.x.device) if weights is None else weights
    chosen = torch.multinomial(chances, most, replacement=weights is not None, generator=generator)
    return Rows(train.x[chosen].double())


def fitted_components(
    kind: type[Mixture],
    moments: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    chord: Callable[[Tensor], Tensor],
    rows: Rows,
    count: int,
    seed: int,
) -> Components:
    """Weights, centers and spreads of a mixture by expectation-maximization.

    Args:
        kind: class of the mixture.
        moments: function from rows and responsibilities (rows, components) to centers and spreads
            (components, …).
        chord: map to coordinates in which distances are Euclidean, for the initial centers.
        rows: rows in float64.
        count: number of components.
        seed: seed of the initial centers.
    """
    x = rows.x
    share = torch.ones(len(x), dtype=x.dtype, device=x.device)
    share = (share if rows.weights is None else rows.weights.to(x)) / len(x)
    share = share / share.sum()
    claims = _start(chord(x), count, seed) * share[:, None]
    weights, (centers, spreads) = claims.sum(0), moments(x, claims)
    for _ in range(defaults.BASE_ITERATIONS):
        parts = kind(torch.ones_like(weights), centers, spreads).component_log_probs(x)
        claims = (parts + weights.log()).softmax(-1) * share[:, None]
        weights = (claims.sum(0) + 1 / len(x)) / (1 + count / len(x))
        centers, spreads = moments(x, claims + 1e-12)
    return weights, centers, spreads


def _start(x: Tensor, count: int, seed: int) -> Tensor:
    """Initial responsibilities (rows, components): each row belongs to the nearest of some distant rows
    (k-means++: Arthur & Vassilvitskii 2007)."""
    generator = torch.Generator(x.device).manual_seed(seed)
    chosen = torch.randint(len(x), (1,), generator=generator, device=x.device)
    nearest = (x - x[chosen]).square().sum(-1)
    for _ in range(count - 1):
        more = torch.multinomial(nearest + 1e-12, 1, generator=generator)
        nearest = torch.minimum(nearest, (x - x[more]).square().sum(-1))
        chosen = torch.cat([chosen, more])
    owner = torch.cdist(x, x[chosen]).argmin(1)
    return torch.nn.functional.one_hot(owner, count).to(x)


def _angular_moments(x: Tensor, claims: Tensor) -> tuple[Tensor, Tensor]:
    """Mean directions and 1 / √κ (components, angles) of angles, κ ≈ R̄ (2 − R̄²) / (1 − R̄²) (Banerjee
    et al. 2005)."""
    mass = claims.sum(0)[:, None]
    cosine, sine = claims.T @ x.cos() / mass, claims.T @ x.sin() / mass
    length = torch.hypot(cosine, sine).clamp(1e-3, 1 - defaults.PERIODIC_LEAST_SPREAD**2 / 2)
    kappa = length * (2 - length.square()) / (1 - length.square())
    return torch.atan2(sine, cosine), kappa**-0.5


def _vector_moments(x: Tensor, claims: Tensor) -> tuple[Tensor, Tensor]:
    """Mean directions (components, 3) and 1 / √κ (components,) of unit vectors, κ ≈ R̄ (3 − R̄²) /
    (1 − R̄²) (Banerjee et al. 2005)."""
    centers, lengths = unit(claims.T @ x / claims.sum(0)[:, None])
    length = lengths.squeeze(-1).clamp(1e-3, 1 - defaults.PERIODIC_LEAST_SPREAD**2)
    kappa = length * (3 - length.square()) / (1 - length.square())
    return centers, kappa**-0.5
