"""Fit a given model to a table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cnf.recipe.tables.plain import fit_moving, fit_plain, gaussian_nll, plain_rows
from cnf.recipe.tables.reading import source_rows
from cnf.recipe.tables.rows import TableRows, encoded, held_rows, merged, split
from cnf.recipe.tables.states import fit_states
from cnf.rows import FEWEST_ROWS, Rows, held_out_rows, held_out_split
from cnf.tables.digest import SEEN, SmallestHashes, digest_of
from cnf.tables.metadata import FitMetadata, quantiles
from cnf.tables.model import TableFlow
from cnf.tables.orders import orders_of
from cnf.tables.schema import Cells
from cnf.training.callbacks import Callback, as_callbacks
from cnf.training.config import Clock
from cnf.training.errors import Interrupted
from cnf.training.history import History
from cnf.training.modes import with_gradients
from cnf.training.processes import shared_seconds
from cnf.training.streams import RowStream
from cnf.version import VERSION


@with_gradients
def fit_table_flow(
    model: TableFlow,
    table: pd.DataFrame,
    valid: pd.DataFrame | None = None,
    *,
    weights: Any = None,
    seed: int = 0,
    imputer: bool | None = None,
    any_subset: bool = False,
    source: pd.DataFrame | None = None,
    stream: RowStream | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    clock: Clock = shared_seconds,
    spent: float = 0.0,
    likelihood_share: float | None = None,
    checkpoint: str | Path | None = None,
    callbacks: tuple[Callback, ...] = (),
) -> History:
    """Fit a given model in place; its schema determines the types of the columns.

    If the model has discrete states, equal rows are merged into one with the sum of their weights, in
    a canonical order. The fit therefore depends neither on the order of the rows nor on whether a row
    is repeated or weighted.

    A `stream` of data frames holds training rows that are too many for memory. The table is then a
    sample of them, which determines every choice, and validation rows must be given separately. Rows
    that the columns cannot represent are left out.

    Arguments, errors and the result are those of `cnf.fit_table`; in addition, `spent` is the number
    of seconds already used. The history is also stored in the metadata of the model.

    Raises:
        Interrupted: (a KeyboardInterrupt) on Ctrl-C during training.

    Example:
        >>> from cnf.tables import Schema
        >>> table = pd.DataFrame({"x": [0.1 * i**1.5 for i in range(200)], "group": list("ab") * 100})
        >>> model = TableFlow(Schema.infer(table), hidden=(8, 8))
        >>> fit_table_flow(model, table, steps=20).valid_nll == model.history.valid_nll
        True
    """
    start = clock()
    callbacks = as_callbacks(callbacks)
    options: dict[str, Any] = {
        "seed": seed,
        "steps": steps,
        "seconds": seconds,
        "clock": clock,
        "likelihood_share": likelihood_share,
        "checkpoint": checkpoint,
        "callbacks": callbacks,
        "stream": None,
    }
    learned = SmallestHashes()
    if stream is not None:
        options["stream"] = stream.mapped(partial(_learned, model, learned))
    rows = encoded(model, table, weights)
    rows_valid = None if valid is None else encoded(model, valid, None)
    if model.plain:
        options |= {"any_subset": any_subset, "source": source_rows(model, source)}
        facts, fit = _plain_fit(model, rows, rows_valid, options, weighted=weights is not None)
    else:
        wanted = True if any_subset else imputer
        facts, fit = _states_fit(model, rows, rows_valid, options, imputer=wanted)
        held_out = held_out_rows(len(table)) if valid is None else len(valid)
        facts["rows"] = len(table) - (held_out if valid is None else 0)
        facts["valid_rows"] = held_out
    if stream is not None:
        facts["rows"] = stream.rows
    names = [
        [column.name for column in part] for part in (model.schema.modeled, model.schema.context)
    ]
    spent += clock() - start
    facts |= {"columns": names[0], "context": names[1], "seed": seed, "version": VERSION}
    facts["orders"] = orders_of(model.schema, table, seed)
    try:
        history, interrupted = fit(spent=spent), False
    except Interrupted as stop:
        history, interrupted = stop.history, True
    if stream is not None and facts["digest"]:
        facts["digest"]["train"] = learned.text
    model.history = history
    model.metadata = FitMetadata(
        **facts, history=history.as_dict(), interrupted=interrupted, choices=None
    )
    if interrupted:
        raise Interrupted(history)
    return history


def _learned(model: TableFlow, hashes: SmallestHashes, chunk: pd.DataFrame) -> TableRows:
    """The rows of a chunk that the model can represent; their hashes are recorded."""
    rows = held_rows(model, chunk)
    hashes.add(rows.cells)
    return rows


def _plain_fit(
    model: TableFlow,
    rows: TableRows,
    valid: TableRows | None,
    options: dict[str, Any],
    *,
    weighted: bool,
) -> tuple[dict[str, Any], Callable[..., History]]:
    """Facts about the rows of a plain table before its fit, and the fit as a function."""
    known = plain_rows(model, rows, weighted=weighted)
    judges = None if valid is None else plain_rows(model, valid, weighted=False)
    train, held_out = held_out_split(known, options["seed"]) if judges is None else (known, judges)
    facts: dict[str, Any] = {
        "rows": len(train),
        "valid_rows": len(held_out),
        "digest": digest_of(_cells(train), _cells(held_out)),
        "quantiles": quantiles(model.numeric_columns, train.x, train.x.isfinite()),
    }
    if model.schema.charts is None:  # a Gaussian is no baseline for angles
        nll, error = gaussian_nll(train, held_out)
        facts["gaussian"] = {"nll": nll, "standard_error": error}
    if options["stream"] is not None:
        rows_of_chunk = partial(plain_rows, model, weighted=False)
        options = {**options, "stream": options["stream"].mapped(rows_of_chunk)}
    run = fit_plain if model.time is None else fit_moving
    return facts, partial(run, model, known, judges, **options)


def _cells(rows: Rows) -> Cells:
    """Rows of plain columns as encoded cells."""
    return Cells(rows.x, torch.zeros_like(rows.x, dtype=torch.long))


def _states_fit(
    model: TableFlow,
    rows: TableRows,
    valid: TableRows | None,
    options: dict[str, Any],
    *,
    imputer: bool | None,
) -> tuple[dict[str, Any], Callable[..., History]]:
    """The quantiles of a table with discrete states, and its fit as a function.

    Raises:
        ValueError: for too few distinct rows.
    """
    count, rows = len(rows), merged(rows)
    discrete = all(column.step or not column.numeric for column in model.schema.modeled)
    fewest = 2 if discrete else FEWEST_ROWS
    if len(rows) < fewest:
        raise ValueError(f"expected at least {fewest} different rows; got {len(rows)}")
    refit = valid is None
    train, valid = (
        split(rows, options["seed"], repeating=discrete) if valid is None else (rows, valid)
    )
    if imputer is None:
        imputer = any(column.missing for column in model.schema.modeled)
    present = model.present(train.cells.states)
    facts = {
        "quantiles": quantiles(model.numeric_columns, train.cells.values, present),
        # If discrete rows often repeat, new rows equal training rows as often, and a digest cannot
        # tell whether they are the same table.
        "digest": None
        if discrete and 2 * (count - len(rows)) >= SEEN * count
        else digest_of(train.cells, valid.cells),
    }
    return facts, partial(fit_states, model, train, valid, imputer=imputer, refit=refit, **options)
