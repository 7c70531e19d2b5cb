"""The choice of the base density."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

import cnf.recipe.defaults as defaults
from cnf.fields import Geometry
from cnf.flows import Base, ContaminatedBase, MixtureBase, NormalBase, StudentTBase
from cnf.flows.mixtures import fitted_mixture, mixture_base
from cnf.flows.product_base import product
from cnf.recipe.affordable import Deadline
from cnf.recipe.gaussian_mixtures import rows_for_mixture
from cnf.recipe.growing_mixtures import DOUBLED_COST, growing_mixtures
from cnf.recipe.periodic_bases import circle_base, sphere_base
from cnf.rows import Rows, weighted_nll
from cnf.training.config import Clock


def base_in_space(geometry: Geometry, train: Rows, valid: Rows, seed: int) -> Base:
    """The base of each part of a geometry, for rows in model coordinates; held-out rows, likewise,
    judge mixtures."""
    if geometry.flat:
        return choose_base(train, valid, seed)
    (reals, angles, vectors), held_out = geometry.split(train.x), geometry.split(valid.x)

    def pair(part: Tensor, held_out_part: Tensor) -> tuple[Rows, Rows]:
        return replace(train, x=part), replace(valid, x=held_out_part)

    return product(
        choose_base(*pair(reals, held_out[0]), seed) if geometry.reals else None,
        circle_base(*pair(angles, held_out[1]), seed) if geometry.angles else None,
        *(
            sphere_base(*pair(vectors[:, k], held_out[2][:, k]), seed)
            for k in range(geometry.spheres)
        ),
    )


def choose_base(train: Rows, valid: Rows, seed: int) -> Base:
    """A normal base, one with heavy tails where rows have outliers, or a mixture of a few wide
    Gaussians where that is much nearer to rows of few columns, so that the field has less to do.

    Args:
        train: rows in model coordinates.
        valid: held-out rows, likewise; they judge the mixture.
        seed: of the mixture.
    """
    dim = train.x.shape[1]
    if (
        dim <= defaults.FEW_COLUMNS
        and train.context is None
        and len(train) >= defaults.BASE_ROWS
        and len(valid) >= defaults.BASE_VALID_ROWS
    ):
        mixture = mixture_if_better(train, valid, seed)
        if mixture is not None:
            return mixture
    # These learn nothing from the rows, so that the training rows themselves can judge.
    heavy = defaults.STUDENT_GAIN * dim
    return min(
        plain_bases(dim),
        key=lambda base: _nll(base, train) + heavy * isinstance(base, StudentTBase),
    )


def grown_base(train: Rows, valid: Rows, *, seconds: float, clock: Clock, seed: int) -> Base:
    """The best of the mixtures that can be grown in so many seconds, with heavy tails or without, or a
    base that is not fitted where that is nearer to held-out rows.

    Args:
        train: rows in model coordinates.
        valid: held-out rows, likewise.
        seconds: for the mixtures.
        clock: the seconds.
        seed: of the mixtures, and of the rows that they learn from.
    """
    deadline = Deadline(clock() + seconds, clock, growth=DOUBLED_COST)
    rows = torch.as_tensor(rows_for_mixture(train.x, train.weights, seed))
    mixtures: list[Base] = []
    best = math.inf
    for mixture in deadline.allows(growing_mixtures(rows, seed)):
        nll = _nll(mixture.to(valid.x), valid)
        if nll < best:
            best, mixtures = nll, [mixture, ContaminatedBase(mixture)]
        elif len(mixture.weights) > defaults.SETTLED_COMPONENTS:
            break
    bases = plain_bases(train.x.shape[1]) + mixtures
    return min(bases, key=lambda base: _nll(base, valid))


def plain_bases(dim: int) -> list[Base]:
    """Bases that are not fitted to rows."""
    normal = NormalBase(dim)
    return [
        normal,
        ContaminatedBase(normal),
        *(StudentTBase(dim, df) for df in defaults.STUDENT_DF),
    ]


def mixture_if_better(train: Rows, valid: Rows, seed: int) -> Base | None:
    """A mixture of wide Gaussians, with heavy tails or without, if it is surely nearer to held-out
    rows than any of the plain bases."""
    try:
        mixture = wide_mixture(train, seed)
    except ValueError:  # rows so far out that a Gaussian of them has no width
        return None
    nearest = min((mixture, ContaminatedBase(mixture)), key=lambda base: _nll(base, valid))
    plain = min(plain_bases(train.x.shape[1]), key=lambda base: _nll(base, valid))
    # The mean of what is gained, and its standard error.
    gain, error = weighted_nll(plain.log_prob(valid.x) - nearest.log_prob(valid.x), valid.weights)
    return nearest if gain - defaults.BASE_ERRORS * error > defaults.BASE_GAIN else None


def wide_mixture(train: Rows, seed: int) -> MixtureBase:
    """A mixture of rows in model coordinates, each Gaussian wider than the rows that it stands
    for.

    Raises:
        ValueError: where rows are so far apart that float64 cannot hold a covariance.
    """
    rows = rows_for_mixture(train.x, train.weights, seed).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # of rows too far apart, which are refused
        model = fitted_mixture(
            rows, defaults.BASE_COMPONENTS, seed=seed, iterations=defaults.BASE_ITERATIONS
        )
    fitted = mixture_base(model, train.x.dtype, train.x.device)
    return MixtureBase(fitted.weights, fitted.means, defaults.BASE_WIDTH * fitted.factors)


def _nll(base: Base, rows: Rows) -> float:
    return weighted_nll(base.log_prob(rows.x), rows.weights)[0]
