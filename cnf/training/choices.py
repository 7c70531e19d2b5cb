"""What a fit chooses by itself from the rows: the map to model coordinates and the base."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from cnf.flows import (
    Affine,
    Base,
    Chain,
    ContaminatedBase,
    Gaussianize,
    MixtureBase,
    NormalBase,
    Preprocess,
    Range,
    StudentTBase,
    Support,
)
from cnf.training.data import Rows
from cnf.training.judge import weighted_nll
from cnf.training.mixtures import chosen_rows, fitted_mixture, mixture_base
from cnf.training.settings import FEW_COLUMNS

# Fewer rows say too little about the shape of a column.
FEWEST_ROWS = 2_000
# Held-out nats a row that a richer map or base must gain over the plain one.
WORTH = 0.05
# What tells maps apart: the held-out likelihoods of two mixtures, fitted in the coordinates of each. A coarse
# one profits from columns that look normal even where the map bends what was straight; how the gain changes
# with finer mixtures says what will be left of it for a flow.
COARSE, FINE = 10, 40
ITERATIONS = 20  # of every mixture that is fitted for a choice
MOST_ROWS = 10_000
FREEDOMS = (3.0, 6.0)
# Of a base. With more Gaussians, or with such as fit the rows, a flow has to fill the gaps between them.
COMPONENTS, WIDTH = 32, 1.5
# Independent heavy columns are another shape, not only other tails: nats a column that they must gain.
WORTH_A_COLUMN = 0.1


def opened_maps(train: Rows, valid: Rows, ranges: Sequence[Range] | None, seed: int) -> dict[str, Preprocess]:
    """Promising maps of the rows, once the ranges of their columns are opened to the whole line.

    Raises:
        ValueError: for a row outside the ranges.
    """
    if ranges is None:
        return promising_maps(train, valid, seed)
    for name, rows in (("x", train), ("x_valid", valid)):
        require_inside(name, rows, ranges)
    support = Support(ranges).to(train.x.device)
    parts = (replace(rows, x=support.to_model(rows.x)[0]) for rows in (train, valid))
    return {name: Chain(support, map) for name, map in promising_maps(*parts, seed).items()}


def require_inside(name: str, rows: Rows, ranges: Sequence[Range]) -> None:
    """Raise a ValueError for a row outside the ranges of the columns, naming the cell."""
    places = Support(ranges).to(rows.x.device).outside(rows.x).nonzero()
    if len(places):
        row, column = places[0].tolist()
        raise ValueError(
            f"{name}: {rows.x[row, column].item():g} in column {column} (counted from 0) is outside its"
            f" range, {ranges[column]}; correct the cell"
        )


def standardised(rows: Rows, ranges: Sequence[Range] | None) -> Preprocess:
    """The map that turns no axes: columns of mean zero and deviation one, once their ranges are opened."""
    if ranges is None:
        return Affine.standardize(rows.x, rows.weights)
    support = Support(ranges).to(rows.x.device)
    return Chain(support, Affine.standardize(support.to_model(rows.x)[0], rows.weights))


def promising_maps(train: Rows, valid: Rows, seed: int) -> dict[str, Preprocess]:
    """Maps to model coordinates by their names for people: whitening, and after it, where the held-out
    likelihood of mixtures gains by that, whitening of Gaussianised columns."""
    plain = {"whitened": Affine.whiten(train.x, train.weights)}
    if len(train) < FEWEST_ROWS or len(valid) < FINE:
        return plain
    marginal = Gaussianize.fit(train.x, train.weights)
    y = marginal.to_model(train.x)[0]
    try:
        richer = Chain(marginal, Affine.whiten(y, train.weights))
    except ValueError:  # columns that depend on each other after the map only
        return plain
    coarse, fine = (
        _quick_nll(plain["whitened"], train, valid, seed, components)
        - _quick_nll(richer, train, valid, seed, components)
        for components in (COARSE, FINE)
    )
    gain = min(fine, 2 * fine - coarse)
    return plain | {"Gaussianised columns, whitened": richer} if gain > WORTH else plain


def _quick_nll(map: Preprocess, train: Rows, valid: Rows, seed: int, components: int) -> float:
    """Held-out NLL of a small mixture in the coordinates of the map, nats a row in units of the data;
    infinite where there is none."""
    generator = torch.Generator(train.x.device).manual_seed(seed)
    chosen = torch.randperm(len(train), generator=generator, device=train.x.device)[:MOST_ROWS]
    if train.weights is not None:
        chosen = torch.multinomial(train.weights, MOST_ROWS, replacement=True, generator=generator)
    rows = map.to_model(train.x[chosen])[0].float().numpy(force=True)
    try:
        model = fitted_mixture(rows, components, seed=seed, iterations=ITERATIONS, smallest=1e-4)
    except ValueError:  # rows so far out that a Gaussian of them has no width
        return math.inf
    y, ladj = map.to_model(valid.x)
    scores = torch.as_tensor(model.score_samples(y.float().numpy(force=True)), device=y.device)
    return weighted_nll(scores + ladj, valid.weights)[0]


def choose_base(train: Rows, valid: Rows, seed: int) -> Base:
    """The normal base, one with heavy tails where rows in model coordinates have outliers, or a mixture of a
    few wide Gaussians where that is much nearer to rows of few columns: the field then has less far to go.

    Args:
        train: rows in model coordinates.
        valid: held-out rows, likewise; they judge the mixture.
        seed: of the mixture.
    """
    dim = train.x.shape[1]
    if dim <= FEW_COLUMNS and train.context is None and len(train) >= FEWEST_ROWS and len(valid) >= FINE:
        mixture = mixture_ahead(train, valid, seed)
        if mixture is not None:
            return mixture
    # These learn nothing from the rows, so that the training rows themselves can judge.
    return min(
        plain_bases(dim),
        key=lambda base: _nll(base, train) + WORTH_A_COLUMN * dim * isinstance(base, StudentTBase),
    )


def plain_bases(dim: int) -> list[Base]:
    """Bases that no row has shaped."""
    normal = NormalBase(dim)
    return [normal, ContaminatedBase(normal), *(StudentTBase(dim, nu) for nu in FREEDOMS)]


def mixture_ahead(train: Rows, valid: Rows, seed: int) -> Base | None:
    """A mixture of wide Gaussians, with heavy tails or without, if it is surely nearer to held-out rows than
    any of the plain bases."""
    try:
        mixture = wide_mixture(train, seed)
    except ValueError:  # rows so far out that a Gaussian of them has no width
        return None
    nearest = min((mixture, ContaminatedBase(mixture)), key=lambda base: _nll(base, valid))
    plain = min(plain_bases(train.x.shape[1]), key=lambda base: _nll(base, valid))
    # The mean of what is gained, and its standard error.
    gain, error = weighted_nll(plain.log_prob(valid.x) - nearest.log_prob(valid.x), valid.weights)
    return nearest if gain - 2 * error > WORTH else None


def wide_mixture(train: Rows, seed: int) -> MixtureBase:
    """A mixture of rows in model coordinates, each Gaussian wider than the rows that it stands for.

    Raises:
        ValueError: where rows are so far apart that numbers cannot tell the widths of a Gaussian.
    """
    rows = chosen_rows(train.x, train.weights, seed).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # of rows too far apart, which are refused
        model = fitted_mixture(rows, COMPONENTS, seed=seed, iterations=ITERATIONS)
    fitted = mixture_base(model, train.x)
    return MixtureBase(fitted.weights, fitted.means, WIDTH * fitted.factors)


def _nll(base: Base, rows: Rows) -> float:
    return weighted_nll(base.log_prob(rows.x), rows.weights)[0]
