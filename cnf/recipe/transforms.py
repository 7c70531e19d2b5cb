"""The choice of the transform to model coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cnf.recipe.defaults as defaults
from cnf.recipe.transform_judges import Judge, mixture_nll
from cnf.rows import Rows
from cnf.transforms import Affine, BoundedToReal, Chain, Charts, Gaussianize, Range, Transform


def transforms_in_space(
    given: Transform,
    train: Rows,
    valid: Rows,
    ranges: Sequence[Range] | None,
    seed: int,
    *,
    judge: Judge = mixture_nll,
) -> dict[str, Transform]:
    """`candidate_transforms`, applied to the real columns only if the flow's transform is a `Charts`:
    angles and spheres stay as they are."""
    if not isinstance(given, Charts):
        return candidate_transforms(train, valid, ranges, seed, judge=judge)
    if not given.reals:
        return {"angles and spheres": given}
    reals, held_out = (replace(rows, x=rows.x[:, given.reals]) for rows in (train, valid))
    ends = None if ranges is None else [ranges[place] for place in given.reals]
    found = candidate_transforms(reals, held_out, ends, seed, judge=judge)
    return {f"{name}, angles apart": given.with_rest(rest) for name, rest in found.items()}


def candidate_transforms(
    train: Rows,
    valid: Rows,
    ranges: Sequence[Range] | None,
    seed: int,
    *,
    judge: Judge = mixture_nll,
) -> dict[str, Transform]:
    """Candidate transforms by their display names, composed with maps of bounded columns to the real line.

    Raises:
        ValueError: for a row outside the ranges.
    """
    if ranges is None:
        return candidate_transforms_of_reals(train, valid, seed, judge=judge)
    for name, rows in (("x", train), ("x_valid", valid)):
        require_inside(name, rows, ranges)
    support = BoundedToReal(ranges).to(train.x.device)
    opened, opened_valid = (replace(rows, x=support(rows.x)[0]) for rows in (train, valid))
    found = candidate_transforms_of_reals(opened, opened_valid, seed, judge=judge)
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
    """Standardize the columns, without rotation, after bounded ones are mapped to the real line."""
    if ranges is None:
        return Affine.standardize(rows.x, rows.weights)
    support = BoundedToReal(ranges).to(rows.x.device)
    return Chain(support, Affine.standardize(support(rows.x)[0], rows.weights))


def candidate_transforms_of_reals(
    train: Rows, valid: Rows, seed: int, *, judge: Judge = mixture_nll
) -> dict[str, Transform]:
    """Whitening, and also whitening of Gaussianized columns if it improves the held-out likelihood of
    mixtures; by their display names.

    Args:
        train: rows to which the transforms are fitted.
        valid: held-out rows that compare them.
        seed: seed of the mixtures.
        judge: held-out NLL of two mixtures in the coordinates of a transform, the coarser first.
    """
    plain: dict[str, Transform] = {"whitened": Affine.whiten(train.x, train.weights)}
    if len(train) < defaults.TRANSFORM_ROWS or len(valid) < max(defaults.TRANSFORM_COMPONENTS):
        return plain
    marginal = Gaussianize.fit(train.x, train.weights)
    y = marginal(train.x)[0]
    try:
        richer = Chain(marginal, Affine.whiten(y, train.weights))
    except ValueError:  # columns that depend on each other only after Gaussianization
        return plain
    plain_nll, richer_nll = (
        judge(transform, train, valid, seed) for transform in (plain["whitened"], richer)
    )
    gains = [before - after for before, after in zip(plain_nll, richer_nll)]
    gain = min(gains[-1], 2 * gains[-1] - gains[0])
    return (
        plain | {"Gaussianized columns, whitened": richer}
        if gain > defaults.TRANSFORM_GAIN
        else plain
    )
