"""Fitting a typed table: states first, then the flow over the numbers, then what imputes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cnf.recipe.fit import fit
from cnf.recipe.tables.budget import IMPUTER_SHARE, Budget
from cnf.recipe.tables.discrete import DiscreteRows, fit_discrete
from cnf.recipe.tables.imputer import fit_imputer
from cnf.recipe.tables.rows import TableRows, dequantized, encoded, merged, split
from cnf.rows import FEWEST_ROWS, evenly_spaced, weighted_nll
from cnf.tables.model import TableFlow
from cnf.training.errors import Interrupted
from cnf.training.history import History
from cnf.training.trainer import Callback

# Integer cells are dequantized afresh in so many copies of the rows as make this many rows
# together.
DEQUANTIZED_ROWS, MOST_COPIES = 100_000, 20
# Rows that the finished model is judged by; each costs a solve for every point of its cell.
JUDGED_ROWS = 1000


def fit_table(
    model: TableFlow,
    table: pd.DataFrame,
    table_valid: pd.DataFrame | None = None,
    *,
    weights: Any = None,
    seed: int = 0,
    steps: int | None = None,
    seconds: float | None = None,
    imputer: bool | None = None,
    likelihood_share: float | None = None,
    checkpoint: str | Path | None = None,
    callbacks: tuple[Callback, ...] = (),
) -> History:
    """Fit the density of a typed table.

    Rows that are equal count as one with the sum of their weights, in an order of their own:
    neither the order of the rows nor whether a weight or a repetition says how often a row is
    there makes a difference.

    Args:
        model: what is fitted, in place.
        table: rows with the columns of the model's schema.
        table_valid: rows to validator by; without them a tenth of the table is set apart.
        weights: weight of each row, >= 0.
        seed: of everything random here.
        steps: budget in updates; the default grows with the rows.
        seconds: budget in seconds instead.
        imputer: whether to fit a second flow that `TableFlow.impute` draws missing cells from;
            None: where the table has missing cells. It takes a third of the seconds, or as many
            steps again.
        likelihood_share: as in `cnf.fit`; by default a few of the updates, or most of the seconds.
        checkpoint: as in `cnf.fit`.
        callbacks: as in `cnf.fit`.

    Returns:
        The history of the flow's fit; its held-out NLL is that of whole rows.

    Raises:
        ValueError: for too few rows, weights that are negative or all zero, or, as a `TableError`,
            cells that the schema does not allow.
        TrainingError: if training diverges for good.
        Interrupted: (a KeyboardInterrupt) on Ctrl-C while flows are being trained.

    Example:
        >>> from cnf.tables import Schema
        >>> table = pd.DataFrame({"x": torch.randn(200).tolist(), "group": list("ab") * 100})
        >>> model = TableFlow(Schema.infer(table), hidden=(8, 8))
        >>> history = fit_table(model, table, steps=20)
        >>> bool(model.log_prob(table).isfinite().all())
        True
    """
    train, valid = _parts(model, table, table_valid, weights, seed)
    imputer = (
        any(column.missing for column in model.schema.modeled) if imputer is None else imputer
    )
    budget = Budget(
        steps, seconds if seconds is None or not imputer else (1 - IMPUTER_SHARE) * seconds
    )
    generator = torch.Generator(model.device).manual_seed(seed)
    fit_maps(model, train, generator)
    pairs = [_discrete_rows(model, part) for part in (train, valid)]
    fit_discrete(model.discrete, *pairs, steps=budget.discrete_steps(model.discrete), seed=seed)
    spending = {
        "steps": budget.flow_steps(len(train)),
        "seconds": budget.flow_seconds,
        "likelihood_share": budget.likelihood_share(likelihood_share),
    }
    common = {"seed": seed, "callbacks": callbacks}
    history, stopped = None, None
    try:
        if model.flow is not None:
            history = _fit_flow(
                model, train, valid, generator, checkpoint=checkpoint, **spending, **common
            )
        if imputer:
            spent = Budget(steps, None if seconds is None else IMPUTER_SHARE * seconds)
            fit_imputer(model, train, valid, spent, **common)
    except Interrupted as stop:
        stopped = stop if history is None else Interrupted(history)
        history = stopped.history
    history = history or History()
    model.eval()
    history.valid_nll, history.valid_se = _judged(model, valid)
    history.train_nll, history.train_se = _judged(model, train)
    if stopped is not None:
        raise stopped
    return history


def _parts(
    model: TableFlow,
    table: pd.DataFrame,
    table_valid: pd.DataFrame | None,
    weights: Any,
    seed: int,
) -> tuple[TableRows, TableRows]:
    """Checked rows to learn from, and to validator by."""
    rows = merged(encoded(model, table, weights))
    discrete = all(column.step or not column.numeric for column in model.schema.modeled)
    fewest = 2 if discrete else FEWEST_ROWS
    if len(rows) < fewest:
        raise ValueError(f"expected at least {fewest} different rows; got {len(rows)}")
    if table_valid is not None:
        return rows, encoded(model, table_valid, None)
    return split(rows, seed, repeating=discrete)


def _fit_flow(
    model: TableFlow,
    train: TableRows,
    valid: TableRows,
    generator: torch.Generator,
    **options: Any,
) -> History:
    """Fit the flow over the numbers to dequantized rows; `options` are those of `cnf.fit`."""
    copies = _copies(model, len(train))
    (x, context), (x_valid, context_valid) = (
        _coordinates(model, part, count, generator)
        for part, count in ((train, copies), (valid, 1))
    )
    weights = train.weights.repeat(copies)
    return fit(
        model.flow,
        x,
        x_valid,
        context=context,
        context_valid=context_valid,
        weights=weights,
        **options,
    )


def _judged(model: TableFlow, rows: TableRows) -> tuple[float, float]:
    """Mean of −log p over some of the rows, whole rows in the units of the table, and its standard
    error."""
    judged = rows.take(evenly_spaced(rows.weights, JUDGED_ROWS))
    found = model.evaluate_cells(judged.cells, model.context_features(judged.context)).log_prob
    return weighted_nll(found, judged.weights)


def fit_maps(model: TableFlow, train: TableRows, generator: torch.Generator) -> None:
    """Fit everything that stands before the flow."""
    model.context_features.fit(train.context, train.weights)
    context = model.context_features(train.context)
    model.state_features.fit(train.cells.states, train.weights)
    cells = dequantized(model, train.cells, generator)
    present = model.present(cells.states)
    model.marginals.fit(cells.values, present, train.weights)
    y = model.marginals.by_cell(cells.values)[0].where(present, 0.0)
    model.whitening.fit(y, present, model.features(cells.states, context), train.weights)


def _coordinates(
    model: TableFlow, rows: TableRows, copies: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Rows as the flow takes them, dequantized afresh in each of some copies, and their
    conditions."""
    context = model.context_features(rows.context)
    parts = [
        model.coordinates(dequantized(model, rows.cells, generator), context)
        for _ in range(copies)
    ]
    return torch.cat([part.z for part in parts]), torch.cat([part.conditions for part in parts])


def _copies(model: TableFlow, rows: int) -> int:
    if not any(column.step for column in model.schema.modeled):
        return 1
    return min(MOST_COPIES, math.ceil(DEQUANTIZED_ROWS / rows))


def _discrete_rows(model: TableFlow, rows: TableRows) -> DiscreteRows:
    extra = model.context_features(rows.context).to(model.dtype)
    states = rows.cells.states
    return DiscreteRows(states, extra, torch.zeros_like(states, dtype=torch.bool), rows.weights)
