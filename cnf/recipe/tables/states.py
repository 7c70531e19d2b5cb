"""Fitting a table with discrete states: the states first, then the flow over the numbers, then the
imputer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import cnf.recipe.defaults as defaults
from cnf.recipe.fit import fit
from cnf.recipe.tables.budget import Budget
from cnf.recipe.tables.discrete import DiscreteRows, fit_discrete
from cnf.recipe.tables.imputer import fit_imputer
from cnf.recipe.tables.rows import TableRows, dequantized
from cnf.rows import evenly_spaced, weighted_nll
from cnf.tables.conditioning import StateConditioning
from cnf.tables.masked_flow import gaussianizing_maps
from cnf.tables.model import TableFlow
from cnf.training.errors import Interrupted
from cnf.training.history import History


def fit_states(
    model: TableFlow,
    train: TableRows,
    valid: TableRows,
    *,
    seed: int,
    steps: int | None,
    seconds: float | None,
    imputer: bool,
    likelihood_share: float | None,
    **options: Any,
) -> History:
    """Fit a model whose flow is conditioned on states to encoded rows; see `cnf.fit_table`.

    `options` are the checkpoint and the callbacks of `cnf.fit`.
    """
    budget = Budget(
        steps,
        seconds if seconds is None or not imputer else (1 - defaults.IMPUTER_SHARE) * seconds,
    )
    generator = torch.Generator(model.device).manual_seed(seed)
    fit_maps(model, train, generator)
    if model.discrete is not None:
        pairs = [_discrete_rows(model, part) for part in (train, valid)]
        fit_discrete(
            model.discrete, *pairs, steps=budget.discrete_steps(model.discrete), seed=seed
        )
    history, stopped = None, None
    try:
        if model.flow is not None:
            copies = _copies(model, len(train))
            x, context = _dequantized_copies(model, train, copies, generator)
            x_valid, context_valid = _dequantized_copies(model, valid, 1, generator)
            history = fit(
                model.flow, x, x_valid,
                context=context, context_valid=context_valid,
                weights=train.weights.repeat(copies), seed=seed,
                steps=budget.flow_steps(len(train)), seconds=budget.flow_seconds,
                likelihood_share=budget.likelihood_share(likelihood_share),
                tolerance=defaults.TYPED_TOLERANCE, **options,
            )  # fmt: skip
        if imputer:
            spent = Budget(steps, None if seconds is None else defaults.IMPUTER_SHARE * seconds)
            fit_imputer(
                model, train, valid, spent, seed=seed, callbacks=options.get("callbacks", ())
            )
    except Interrupted as stop:
        stopped = stop if history is None else Interrupted(history)
        history = stopped.history
    history = history or History()
    model.eval()
    # The Gaussian that cells are measured by knows no circle: there one rule serves all cells.
    if model.flow is not None and model.schema.charts is None:
        context = model.conditioning.context(train.context)
        model.integrals.measure(model.flow, model.number_rows(train.cells, context))
    history.valid_nll, history.valid_se = _mean_nll(model, valid)
    history.train_nll, history.train_se = _mean_nll(model, train)
    if stopped is not None:
        raise stopped
    return history


def _mean_nll(model: TableFlow, rows: TableRows) -> tuple[float, float]:
    """Mean of −log p over some of the rows, whole rows in the units of the table, and its standard
    error."""
    chosen = rows.take(evenly_spaced(rows.weights, defaults.TYPED_JUDGED_ROWS))
    found = model.evaluate_cells(chosen.cells, model.conditioning.context(chosen.context))
    return weighted_nll(found.log_prob, chosen.weights)


def fit_maps(model: TableFlow, train: TableRows, generator: torch.Generator) -> None:
    """Fit the features of states and context, and the transforms of the flow."""
    conditioning = model.conditioning
    assert isinstance(conditioning, StateConditioning), "plain tables have no maps"
    conditioning.fit(train.cells, train.context, train.weights)
    cells = dequantized(model, train.cells, generator)
    if model.flow is None:
        return
    marginals, whitening = gaussianizing_maps(model.flow)
    present, context = model.present(cells.states), conditioning.context(train.context)
    values, charts = cells.values, model.schema.charts
    if charts is not None:
        values, present = values[:, charts.reals], present[:, charts.reals]
    marginals.fit(values, present, train.weights)
    y = marginals.by_cell(values)[0].where(present, 0.0)
    whitening.fit(y, present, conditioning.features(cells.states, context), train.weights)


def _dequantized_copies(
    model: TableFlow, rows: TableRows, copies: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Numbers (copies · rows, numeric), dequantized anew in each copy, and the flow's context."""
    context = model.conditioning.context(rows.context)
    conditions = model.conditions(rows.cells.states, context)
    assert conditions is not None, "states condition the flow"
    parts = [dequantized(model, rows.cells, generator).values for _ in range(copies)]
    return torch.cat(parts), conditions.repeat(copies, 1)


def _copies(model: TableFlow, rows: int) -> int:
    if not any(column.step for column in model.schema.modeled):
        return 1
    return min(defaults.DEQUANTIZED_MOST_COPIES, math.ceil(defaults.DEQUANTIZED_ROWS / rows))


def _discrete_rows(model: TableFlow, rows: TableRows) -> DiscreteRows:
    extra = model.conditioning.context(rows.context).to(model.dtype)
    states = rows.cells.states
    return DiscreteRows(states, extra, torch.zeros_like(states, dtype=torch.bool), rows.weights)
