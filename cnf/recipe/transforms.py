"""The choice of the transform to model coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from cnf.flows.mixtures import fitted_mixture
from cnf.rows import Rows, weighted_nll
from cnf.transforms import Affine, BoundedToReal, Chain, Gaussianize, Range, Transform

# Fewer rows say too little about the shape of a column.
FEWEST_ROWS = 2_000
# Held-out nats a row that a richer transform must gain over whitening.
WORTH = 0.05
# What tells transforms apart: the held-out likelihoods of two mixtures, fitted in the coordinates
# of each. A coarse one profits from columns that look normal even where the transform bends what
# was straight; how the gain changes with finer mixtures says what will be left of it for a flow.
COARSE, FINE = 10, 40
ITERATIONS = 20
MOST_ROWS = 10_000


def candidate_transforms(
    train: Rows, valid: Rows, ranges: Sequence[Range] | None, seed: int
) -> dict[str, Transform]:
    """Promising maps of the rows, once the ranges of their columns are opened to the whole line.

    Raises:
        ValueError: for a row outside the ranges.
    """
    if ranges is None:
        return candidate_transforms_of_reals(train, valid, seed)
    for name, rows in (("x", train), ("x_valid", valid)):
        require_inside(name, rows, ranges)
    support = BoundedToReal(ranges).to(train.x.device)
    parts = (replace(rows, x=support(rows.x)[0]) for rows in (train, valid))
    return {
        name: Chain(support, map)
        for name, map in candidate_transforms_of_reals(*parts, seed).items()
    }


def require_inside(name: str, rows: Rows, ranges: Sequence[Range]) -> None:
    """Raise a ValueError for a row outside the ranges of the columns, naming the cell."""
    places = BoundedToReal(ranges).to(rows.x.device).outside(rows.x).nonzero()
    if len(places):
        row, column = places[0].tolist()
        raise ValueError(
            f"{name}: {rows.x[row, column].item():g} in column {column} (counted from 0) is outside its"
            f" range, {ranges[column]}; correct the cell"
        )


def standardizing_transform(rows: Rows, ranges: Sequence[Range] | None) -> Transform:
    """The map that turns no axes: columns of mean zero and deviation one, once their ranges are
    opened."""
    if ranges is None:
        return Affine.standardize(rows.x, rows.weights)
    support = BoundedToReal(ranges).to(rows.x.device)
    return Chain(support, Affine.standardize(support(rows.x)[0], rows.weights))


def candidate_transforms_of_reals(train: Rows, valid: Rows, seed: int) -> dict[str, Transform]:
    """Maps to model coordinates by their names for people: whitening, and after it, where the
    held-out likelihood of mixtures gains by that, whitening of Gaussianized columns."""
    plain = {"whitened": Affine.whiten(train.x, train.weights)}
    if len(train) < FEWEST_ROWS or len(valid) < FINE:
        return plain
    marginal = Gaussianize.fit(train.x, train.weights)
    y = marginal(train.x)[0]
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
    return plain | {"Gaussianized columns, whitened": richer} if gain > WORTH else plain


def _quick_nll(map: Transform, train: Rows, valid: Rows, seed: int, components: int) -> float:
    """Held-out NLL of a small mixture in the coordinates of the map, nats a row in units of the
    data; infinite where there is none."""
    generator = torch.Generator(train.x.device).manual_seed(seed)
    chosen = torch.randperm(len(train), generator=generator, device=train.x.device)[:MOST_ROWS]
    if train.weights is not None:
        chosen = torch.multinomial(train.weights, MOST_ROWS, replacement=True, generator=generator)
    rows = map(train.x[chosen])[0].float().numpy(force=True)
    try:
        model = fitted_mixture(rows, components, seed=seed, iterations=ITERATIONS, smallest=1e-4)
    except ValueError:  # rows so far out that a Gaussian of them has no width
        return math.inf
    y, ladj = map(valid.x)
    scores = torch.as_tensor(model.score_samples(y.float().numpy(force=True)), device=y.device)
    return weighted_nll(scores + ladj, valid.weights)[0]
