"""Fit the imputer: known cells are drawn at random, states are fitted by likelihood, numbers by flow
matching, and forests that find donors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import cnf.recipe.defaults as defaults
from cnf.recipe.fit import fit
from cnf.recipe.subsets import SUBSET_STAGE
from cnf.recipe.tables.budget import Budget
from cnf.recipe.tables.discrete import DiscreteRows, fit_discrete
from cnf.recipe.tables.donors import fit_donors
from cnf.recipe.tables.rows import TableRows, dequantized
from cnf.rows import evenly_spaced
from cnf.tables.imputation import Imputation, Observed
from cnf.tables.model import TableFlow
from cnf.training.callbacks import Callback


def fit_imputer(
    model: TableFlow,
    train: TableRows,
    valid: TableRows,
    budget: Budget,
    *,
    seed: int,
    callbacks: tuple[Callback, ...] = (),
) -> None:
    """Fit a new imputer of a model with fitted transforms; its numbers by flow matching alone.

    In every row, a random fraction of the cells, from none to all, is known. The imputer learns to
    predict the others, or some of them.
    """
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        imputation = model.with_imputer().imputation
    imputer = imputation.imputer
    generator = torch.Generator(model.device).manual_seed(seed + 1)
    copies = max(
        1, min(defaults.IMPUTER_MOST_COPIES, math.ceil(defaults.IMPUTER_ROWS / len(train)))
    )
    rows, known = len(train), train
    train = train.take(_places(model, imputation, train, copies, budget))
    valid = valid.take(evenly_spaced(valid.weights, defaults.IMPUTER_JUDGED_ROWS))
    both = [(rows, *_partly_masked(imputation, rows, generator)) for rows in (train, valid)]
    states = [_discrete_rows(model, *part) for part in both]
    fit_discrete(imputer.discrete, *states, budget=budget, seed=seed)
    if imputer.flow is not None:
        (x, context), (x_valid, context_valid) = (
            _coordinates(model, *part, generator) for part in both
        )
        fit(
            imputer.flow,
            x,
            x_valid,
            context=context,
            context_valid=context_valid,
            weights=train.weights,
            seed=seed,
            steps=budget.flow_steps(rows),
            seconds=budget.flow_seconds(defaults.DONOR_SHARE),
            clock=budget.clock,
            likelihood_share=0.0,
            matching_name=SUBSET_STAGE,
            scored=False,
            callbacks=callbacks,
        )
    imputer.donors = fit_donors(model, known, budget, seed=seed)


def _places(
    model: TableFlow, imputation: Imputation, train: TableRows, copies: int, budget: Budget
) -> Tensor:
    """Indices of the training rows, repeated as often as time allows, or of a subsample if there is no
    time for one copy. The transform of each row costs time, since each has its own pattern."""
    places = torch.arange(len(train), device=train.weights.device).repeat(copies)
    if imputation.imputer.flow is None:
        return places
    generator = torch.Generator(model.device).manual_seed(0)

    def mapped(rows: int) -> None:
        some = train.take(evenly_spaced(train.weights, rows, repeat=True))
        _coordinates(model, some, *_partly_masked(imputation, some, generator), generator)

    most = budget.rows(
        len(places), defaults.IMPUTER_COPIES_SHARE, mapped, fewest=defaults.FEWEST_MAPPED_ROWS
    )
    return places[evenly_spaced(places, most)] if most < len(train) else places[:most]


def _partly_masked(
    imputation: Imputation, rows: TableRows, generator: torch.Generator
) -> tuple[Observed, Tensor]:
    """The known cells of rows after a random part of each is masked, and the states to predict or known.
    In a fraction of the rows, some of the masked columns are left out."""
    shape, device = rows.cells.states.shape, rows.weights.device

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, device=device)

    masked = uniform(*shape) < uniform(shape[0], 1)
    left_out = masked & (uniform(*shape) < uniform(shape[0], 1))
    left_out &= uniform(shape[0], 1) < defaults.IMPUTER_LEFT_OUT
    # Longitude and latitude are known, predicted or left out together.
    for longitude, latitude in imputation.pairs:
        masked[:, latitude], left_out[:, latitude] = masked[:, longitude], left_out[:, longitude]
    observed = imputation.observed(rows.cells, masked)
    # Missing cells are masked as often as others. Otherwise the imputer would overestimate the
    # probability that a masked cell is missing.
    left_out |= ~masked & ~observed.mask
    return observed, rows.cells.states.where(~left_out, -1)


def _discrete_rows(
    model: TableFlow, rows: TableRows, observed: Observed, states: Tensor
) -> DiscreteRows:
    context = model.conditioning.context(rows.context)
    extra = model.imputation.imputer.extra(observed, context).to(model.dtype)
    return DiscreteRows(states, extra, observed.mask, rows.weights)


def _coordinates(
    model: TableFlow,
    rows: TableRows,
    observed: Observed,
    states: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The masked numbers in the coordinates of the imputer's flow, and its context."""
    imputation, context = model.imputation, model.conditioning.context(rows.context)
    y = imputation.gaussianize(dequantized(model, rows.cells, generator).values)
    z, conditions, _ = imputation.coordinates(y, states, context, observed)
    return z, conditions
