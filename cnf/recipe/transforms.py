"""The choice of the transform to model coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

import cnf.recipe.defaults as defaults
from cnf.flows.mixtures import fitted_mixture
from cnf.rows import Rows, weighted_nll
from cnf.transforms import Affine, BoundedToReal, Chain, Charts, Gaussianize, Range, Transform


def transforms_in_space(
    given: Transform,
    train: Rows,
    valid: Rows,
    ranges: Sequence[Range] | None,
    seed: int,
    *,
    judges: Sequence[int] = defaults.TRANSFORM_COMPONENTS,
) -> dict[str, Transform]:
    """`candidate_transforms`, in place of the map of its real columns where the map that a flow has
    are `Charts`: angles and spheres stay as they are."""
    if not isinstance(given, Charts):
        return candidate_transforms(train, valid, ranges, seed, judges=judges)
    if not given.reals:
        return {"angles and spheres": given}
    reals, held_out = (replace(rows, x=rows.x[:, given.reals]) for rows in (train, valid))
    ends = None if ranges is None else [ranges[place] for place in given.reals]
    found = candidate_transforms(reals, held_out, ends, seed, judges=judges)
    return {f"{name}, angles apart": given.with_rest(rest) for name, rest in found.items()}


def candidate_transforms(
    train: Rows,
    valid: Rows,
    ranges: Sequence[Range] | None,
    seed: int,
    *,
    judges: Sequence[int] = defaults.TRANSFORM_COMPONENTS,
) -> dict[str, Transform]:
    """Candidates by their names for people, after columns with ranges are mapped to the real line.

    Raises:
        ValueError: for a row outside the ranges.
    """
    if ranges is None:
        return candidate_transforms_of_reals(train, valid, seed, judges=judges)
    for name, rows in (("x", train), ("x_valid", valid)):
        require_inside(name, rows, ranges)
    support = BoundedToReal(ranges).to(train.x.device)
    opened, opened_valid = (replace(rows, x=support(rows.x)[0]) for rows in (train, valid))
    found = candidate_transforms_of_reals(opened, opened_valid, seed, judges=judges)
    return {name: Chain(support, transform) for name, transform in found.items()}


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
    """Columns of mean zero and deviation one, after those with ranges are mapped to the real line;
    no axes are turned."""
    if ranges is None:
        return Affine.standardize(rows.x, rows.weights)
    support = BoundedToReal(ranges).to(rows.x.device)
    return Chain(support, Affine.standardize(support(rows.x)[0], rows.weights))


def candidate_transforms_of_reals(
    train: Rows, valid: Rows, seed: int, *, judges: Sequence[int] = defaults.TRANSFORM_COMPONENTS
) -> dict[str, Transform]:
    """Whitening, and after it, where the held-out likelihood of mixtures gains by that, whitening
    of Gaussianized columns; by their names for people.

    Args:
        train: rows to fit them to.
        valid: rows that judge them.
        seed: of the mixtures.
        judges: numbers of components of the mixtures, the coarsest first.
    """
    plain: dict[str, Transform] = {"whitened": Affine.whiten(train.x, train.weights)}
    if len(train) < defaults.TRANSFORM_ROWS or len(valid) < max(judges):
        return plain
    marginal = Gaussianize.fit(train.x, train.weights)
    y = marginal(train.x)[0]
    try:
        richer = Chain(marginal, Affine.whiten(y, train.weights))
    except ValueError:  # columns that depend on each other only after Gaussianization
        return plain
    gains = [
        _quick_nll(plain["whitened"], train, valid, seed, components)
        - _quick_nll(richer, train, valid, seed, components)
        for components in judges
    ]
    gain = min(gains[-1], 2 * gains[-1] - gains[0])
    return (
        plain | {"Gaussianized columns, whitened": richer}
        if gain > defaults.TRANSFORM_GAIN
        else plain
    )


def _quick_nll(
    transform: Transform, train: Rows, valid: Rows, seed: int, components: int
) -> float:
    """Held-out NLL of a small mixture in the coordinates of the transform, in nats a row and the
    units of the data; infinite where there is none."""
    generator = torch.Generator(train.x.device).manual_seed(seed)
    most = defaults.TRANSFORM_SAMPLE
    chosen = torch.randperm(len(train), generator=generator, device=train.x.device)[:most]
    if train.weights is not None:
        chosen = torch.multinomial(train.weights, most, replacement=True, generator=generator)
    rows = transform(train.x[chosen])[0].float().numpy(force=True)
    try:
        model = fitted_mixture(
            rows, components, seed=seed,
            iterations=defaults.TRANSFORM_ITERATIONS, smallest=defaults.TRANSFORM_VARIANCE,
        )  # fmt: skip
    except ValueError:  # rows so far out that a Gaussian of them has no width
        return math.inf
    y, ladj = transform(valid.x)
    scores = torch.as_tensor(model.score_samples(y.float().numpy(force=True)), device=y.device)
    return weighted_nll(scores + ladj, valid.weights)[0]
