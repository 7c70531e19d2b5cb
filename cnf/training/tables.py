"""Fitting a typed table: symbols first, then the flow over the numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cnf.flows.calibration import calibration_rows
from cnf.tables.model import TableFlow
from cnf.tables.schema import Cells, Schema
from cnf.training.data import as_rows
from cnf.training.fit import FEWEST_ROWS, HELD_OUT, fit
from cnf.training.history import History
from cnf.training.judge import weighted_nll
from cnf.training.settings import default_steps
from cnf.training.start import default_frequency, default_width
from cnf.training.symbols import SymbolRows, fit_symbols
from cnf.training.trainer import Interrupted, Watcher

# Integer cells are dequantised afresh in so many copies of the rows as make this many rows together.
DEQUANTISED_ROWS, MOST_COPIES = 100_000, 20
# Rows that the finished model is judged by; each costs a solve for every point of its cell.
JUDGED_ROWS = 1000
# Of the seconds, for the symbols; a step of theirs costs about a millisecond for each column.
SYMBOL_SHARE, SYMBOL_STEPS = 0.1, 2000
SECONDS_A_COLUMN = 2e-3


@dataclass(frozen=True)
class TableRows:
    """Encoded rows: modelled cells, context cells, weights (rows,) of mean one, and their sums as given."""

    cells: Cells
    context: Cells
    weights: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.cells)

    def take(self, places: Tensor) -> TableRows:
        """The rows at `places`."""
        weights, counts = self.weights[places], self.counts[places]
        return TableRows(self.cells.take(places), self.context.take(places), weights, counts)


def fresh_table_flow(
    schema: Schema, rows: int, *, hidden: tuple[int, int] | None = None, seed: int
) -> TableFlow:
    """A model of the right size for a table of so many rows; torch's own generator is left as it was."""
    dim = max(1, sum(column.numeric for column in schema.modelled))
    width = default_width(rows, dim)
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        return TableFlow(
            schema, hidden=hidden or (width, width), frequency=min(default_frequency(rows, dim), 3.0)
        )


def fit_table(
    model: TableFlow,
    table: pd.DataFrame,
    table_valid: pd.DataFrame | None = None,
    *,
    weights: Any = None,
    seed: int = 0,
    steps: int | None = None,
    seconds: float | None = None,
    checkpoint: str | Path | None = None,
    watchers: tuple[Watcher, ...] = (),
) -> History:
    """Fit the density of a typed table.

    Rows that are equal count as one with the sum of their weights, in an order of their own: neither the
    order of the rows nor whether a weight or a repetition says how often a row is there makes a difference.

    Args:
        model: what is fitted, in place.
        table: rows with the columns of the model's schema.
        table_valid: rows to judge by; without them a tenth of the table is set apart.
        weights: weight of each row, >= 0.
        seed: of everything random here.
        steps: budget in updates; the default grows with the rows.
        seconds: budget in seconds instead.
        checkpoint: as in `cnf.fit`.
        watchers: as in `cnf.fit`.

    Returns:
        The history of the flow's fit; its held-out NLL is that of whole rows.

    Raises:
        ValueError: for too few rows, weights that are negative or all zero, or, as a `TableError`, cells that
            the schema does not allow.

    Example:
        >>> table = pd.DataFrame({"x": torch.randn(200).tolist(), "group": list("ab") * 100})
        >>> model = TableFlow(Schema.infer(table), hidden=(8, 8))
        >>> history = fit_table(model, table, steps=20)
        >>> bool(model.log_prob(table).isfinite().all())
        True
    """
    rows = merged(encoded(model, table, weights))
    discrete = all(column.kind in ("categorical", "integer") for column in model.schema.modelled)
    if len(rows) < (2 if discrete else FEWEST_ROWS):
        raise ValueError(f"expected at least {FEWEST_ROWS} different rows; got {len(rows)}")
    if table_valid is not None:
        train, valid = rows, encoded(model, table_valid, None)
    else:
        train, valid = split(rows, seed, repeating=discrete)
    generator = torch.Generator(model.like.device).manual_seed(seed)
    context = fit_maps(model, train, generator)
    budget = _symbol_steps(model, steps, seconds)
    fit_symbols(
        model.symbols, *(_symbol_rows(model, part) for part in (train, valid)), steps=budget, seed=seed
    )
    history, stopped = History(), None
    if model.flow is not None:
        copies = _copies(model, len(train))
        at = [model.coordinates(dequantised(model, train.cells, generator), context) for _ in range(copies)]
        judge = model.coordinates(
            dequantised(model, valid.cells, generator), model.context_features(valid.context)
        )
        try:
            history = fit(
                model.flow,
                torch.cat([part.z for part in at]),
                judge.z,
                context=torch.cat([part.conditions for part in at]),
                context_valid=judge.conditions,
                weights=train.weights.repeat(copies),
                seed=seed,
                steps=steps or (default_steps(len(train)) if seconds is None else None),
                seconds=None if seconds is None else (1 - SYMBOL_SHARE) * seconds,
                checkpoint=checkpoint,
                watchers=watchers,
            )
        except Interrupted as stop:
            history, stopped = stop.history, stop
    model.eval()
    history.valid_nll, history.valid_se = _judged(model, valid)
    history.train_nll, history.train_se = _judged(model, train)
    if stopped is not None:
        raise stopped
    return history


def _judged(model: TableFlow, rows: TableRows) -> tuple[float, float]:
    """Mean of −log p over some of the rows, whole rows in the units of the table, and its standard error."""
    judged = rows.take(calibration_rows(rows.weights, JUDGED_ROWS))
    found = model.evaluate_cells(judged.cells, model.context_features(judged.context)).log_prob
    return weighted_nll(found, judged.weights)


def encoded(model: TableFlow, table: pd.DataFrame, weights: Any) -> TableRows:
    """Checked rows of a data frame on the model's device."""
    device = model.like.device
    parts = [model.schema.encode(table, columns) for columns in (model.schema.modelled, model.schema.context)]
    cells, context = (Cells(part.values.to(device), part.symbols.to(device)) for part in parts)
    ones = torch.ones(len(table), dtype=torch.float64, device=device)
    if weights is None:
        return TableRows(cells, context, ones, ones)
    checked = as_rows("table", ones[:, None], None, weights, device).weights
    return TableRows(cells, context, checked, torch.tensor(np.asarray(weights, dtype=np.float64)).to(checked))


def merged(rows: TableRows) -> TableRows:
    """The different rows of weight above zero, sorted, each with the sum of its weights; of mean one."""
    parts = (rows.cells.values, rows.cells.symbols, rows.context.values, rows.context.symbols)
    keys = torch.cat([part.double() for part in parts], 1).cpu().numpy()
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    sums = torch.bincount(torch.from_numpy(inverse.ravel()), rows.counts.cpu()).to(rows.weights)
    kept = rows.take(torch.from_numpy(first).to(rows.weights.device))
    chosen = (sums > 0).nonzero().squeeze(1)
    return replace(kept, weights=sums / sums[chosen].mean(), counts=sums).take(chosen)


def split(rows: TableRows, seed: int, *, repeating: bool) -> tuple[TableRows, TableRows]:
    """The rows to learn from under this seed, and the tenth that judges.

    Where rows repeat, as those of integers and categories do, one that is there often enough gives a tenth of
    its weight to judge by: a row set apart whole would never be learnt.
    """
    generator = torch.Generator(rows.weights.device).manual_seed(seed)
    order = torch.randperm(len(rows), generator=generator, device=rows.weights.device)
    share = torch.zeros_like(rows.weights)
    share[order[: max(1, round(HELD_OUT * len(rows)))]] = 1.0
    if repeating:
        share[rows.counts >= 1 / HELD_OUT] = HELD_OUT
    parts = (replace(rows, weights=(1 - share) * rows.weights), replace(rows, weights=share * rows.weights))
    return tuple(part.take((part.weights > 0).nonzero().squeeze(1)) for part in parts)


def dequantised(model: TableFlow, cells: Cells, generator: torch.Generator) -> Cells:
    """The cells with integers spread evenly over their steps."""
    steps = [model.schema.modelled[i].step or 0.0 for i in model.numeric]
    width = torch.tensor(steps, dtype=torch.float64, device=cells.values.device)
    noise = (
        torch.rand(cells.values.shape, generator=generator, device=width.device, dtype=torch.float64) - 0.5
    )
    return Cells(cells.values + noise * width, cells.symbols)


def fit_maps(model: TableFlow, train: TableRows, generator: torch.Generator) -> Tensor:
    """Fit everything before the flow, and return the features of the training rows' context."""
    model.context_features.fit(train.context, train.weights)
    context = model.context_features(train.context)
    cells = dequantised(model, train.cells, generator)
    present = model.present(cells.symbols)
    model.marginals.fit(cells.values, present, train.weights)
    y = model.marginals.to_model(cells.values)[0].where(present, 0.0)
    model.whitening.fit(y, present, model.features(cells.symbols, context), train.weights)
    return context


def _copies(model: TableFlow, rows: int) -> int:
    if not any(column.kind == "integer" for column in model.schema.modelled):
        return 1
    return min(MOST_COPIES, math.ceil(DEQUANTISED_ROWS / rows))


def _symbol_steps(model: TableFlow, steps: int | None, seconds: float | None) -> int:
    if seconds is None:
        return min(steps or SYMBOL_STEPS, SYMBOL_STEPS)
    each = SECONDS_A_COLUMN * max(1, len(model.symbols.uncertain))
    return max(1, min(SYMBOL_STEPS, int(SYMBOL_SHARE * seconds / each)))


def _symbol_rows(model: TableFlow, rows: TableRows) -> SymbolRows:
    extra = model.context_features(rows.context).to(model.like.dtype)
    symbols = rows.cells.symbols
    return SymbolRows(symbols, extra, torch.zeros_like(symbols, dtype=torch.bool), rows.weights)
