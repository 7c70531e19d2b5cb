"""Fitting what imputes: known cells drawn at random, states by likelihood, numbers by flow
matching."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cnf.recipe.fit import fit
from cnf.recipe.tables.budget import Budget
from cnf.recipe.tables.discrete import DiscreteRows, fit_discrete
from cnf.recipe.tables.rows import TableRows, dequantized
from cnf.rows import evenly_spaced
from cnf.tables.imputation import Known
from cnf.tables.model import TableFlow
from cnf.training.trainer import Callback

# Rows, each with another set of known cells, that the fit sees; and those it is judged by, each of
# which has a pattern of its own to be solved.
ROWS, MOST_COPIES, JUDGED_ROWS = 100_000, 20, 256


def fit_imputer(
    model: TableFlow,
    train: TableRows,
    valid: TableRows,
    budget: Budget,
    *,
    seed: int,
    callbacks: tuple[Callback, ...] = (),
) -> None:
    """Fit a fresh imputer of a model whose maps are fitted; its numbers by flow matching alone.

    Every row shows a share of its cells that is drawn anew, from none to all, and the rest is what
    is asked.
    """
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        imputer = model.with_imputer().imputer
    generator = torch.Generator(model.device).manual_seed(seed + 1)
    copies = max(1, min(MOST_COPIES, math.ceil(ROWS / len(train))))
    train = train.take(torch.arange(len(train), device=train.weights.device).repeat(copies))
    valid = valid.take(evenly_spaced(valid.weights, JUDGED_ROWS))
    known = [_hidden(model, rows, generator) for rows in (train, valid)]
    states = [_discrete_rows(model, rows, seen) for rows, seen in zip((train, valid), known)]
    fit_discrete(
        imputer.discrete, *states, steps=budget.discrete_steps(imputer.discrete), seed=seed
    )
    if imputer.flow is None:
        return
    (x, context), (x_valid, context_valid) = (
        _coordinates(model, rows, seen, generator) for rows, seen in zip((train, valid), known)
    )
    fit(
        imputer.flow,
        x,
        x_valid,
        context=context,
        context_valid=context_valid,
        weights=train.weights,
        seed=seed,
        steps=budget.flow_steps(len(train) // copies),
        seconds=budget.flow_seconds,
        likelihood_share=0.0,
        callbacks=callbacks,
    )


def _hidden(model: TableFlow, rows: TableRows, generator: torch.Generator) -> Known:
    """What is known of the rows when a random part of each is hidden."""
    shape, device = rows.cells.states.shape, rows.weights.device
    share = torch.rand(shape[0], 1, generator=generator, device=device)
    return model.known(rows.cells, torch.rand(shape, generator=generator, device=device) < share)


def _discrete_rows(model: TableFlow, rows: TableRows, known: Known) -> DiscreteRows:
    extra = model.imputer.extra(known, model.context_features(rows.context)).to(model.dtype)
    return DiscreteRows(model.known(rows.cells).states, extra, known.seen, rows.weights)


def _coordinates(
    model: TableFlow, rows: TableRows, known: Known, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The hidden numbers in the coordinates of the flow, and its conditions."""
    context = model.context_features(rows.context)
    states = model.known(rows.cells).states
    free = model.present(states) & ~known.given
    y = model.marginals.by_cell(dequantized(model, rows.cells, generator).values)[0]
    y = known.y.where(known.given, y)
    features = model.features(states, context)
    z, _ = model.whitening.whiten(y, free, features, known.given)
    return z, model.imputer.conditions(free, features, known)
