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
    """The base of each part of a geometry, for rows in model coordinates; the held-out rows, in the same
    coordinates, decide whether a mixture is used."""
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
    """Choose a normal base, a heavy-tailed one if rows have outliers, or a mixture of a few wide
    Gaussians if rows of few columns are much likelier under it, which leaves less for the field to learn.

    Args:
        train: training rows in model coordinates.
        valid: held-out rows in model coordinates; they decide whether the mixture is used.
        seed: seed of the mixture fit.
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
    # These bases are not fitted to the rows, so that the training rows can compare them.
    heavy = defaults.STUDENT_GAIN * dim
    return min(
        plain_bases(dim),
        key=lambda base: _nll(base, train) + heavy * isinstance(base, StudentTBase),
    )


def grown_base(train: Rows, valid: Rows, *, seconds: float, clock: Clock, seed: int) -> Base:
    """The best mixture that can be grown in the given seconds, with normal or heavy tails, or an unfitted
    base if that has the better held-out likelihood.

    Args:
        train: training rows in model coordinates.
        valid: held-out rows in model coordinates.
        seconds: time for the mixtures.
        clock: function that returns seconds.
        seed: seed of the mixtures, and of the choice of their training rows.
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
    """A mixture of wide Gaussians, with normal or heavy tails, if its held-out likelihood is significantly
    better than that of every unfitted base."""
    try:
        mixture = wide_mixture(train, seed)
    except ValueError:  # the rows are too far apart for a covariance
        return None
    nearest = min((mixture, ContaminatedBase(mixture)), key=lambda base: _nll(base, valid))
    plain = min(plain_bases(train.x.shape[1]), key=lambda base: _nll(base, valid))
    # The mean gain, and its standard error.
    gain, error = weighted_nll(plain.log_prob(valid.x) - nearest.log_prob(valid.x), valid.weights)
    return nearest if gain - defaults.BASE_ERRORS * error > defaults.BASE_GAIN else None


def wide_mixture(train: Rows, seed: int) -> MixtureBase:
    """A mixture of rows in model coordinates with inflated covariances.

    Raises:
        ValueError: if rows are so far apart that float64 cannot hold a covariance.
    """
    rows = rows_for_mixture(train.x, train.weights, seed).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # such rows are refused with an error
        model = fitted_mixture(
            rows, defaults.BASE_COMPONENTS, seed=seed, iterations=defaults.BASE_ITERATIONS
        )
    fitted = mixture_base(model, train.x.dtype, train.x.device)
    return MixtureBase(fitted.weights, fitted.means, defaults.BASE_WIDTH * fitted.factors)


def _nll(base: Base, rows: Rows) -> float:
    return weighted_nll(base.log_prob(rows.x), rows.weights)[0]
