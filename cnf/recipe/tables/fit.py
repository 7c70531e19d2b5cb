"""From a table to a fitted model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cnf.deprecation import removed_argument, renamed_argument
from cnf.recipe.architecture import default_moving_table, default_table_flow
from cnf.recipe.tables.plain import fit_moving, fit_plain, gaussian_nll, plain_rows
from cnf.recipe.tables.reading import (
    source_rows,
    source_table,
    table_frame,
    told_of,
    unusual_lines,
    validation_table,
)
from cnf.recipe.tables.rows import TableRows, encoded, held_rows, merged, split
from cnf.recipe.tables.states import fit_states
from cnf.recipe.tables.streaming import streamed_table
from cnf.rows import FEWEST_ROWS, HELD_OUT, Rows, held_out_split
from cnf.tables.cells import numbers
from cnf.tables.column_types.circular import with_pairs
from cnf.tables.digest import SmallestHashes, digest_of
from cnf.tables.metadata import FitMetadata, quantiles
from cnf.tables.model import TableFlow
from cnf.tables.moments import ends_of, with_moments
from cnf.tables.orders import orders_of
from cnf.tables.schema import Cells, Schema
from cnf.training.callbacks import Callback
from cnf.training.errors import Interrupted
from cnf.training.history import History
from cnf.training.modes import with_gradients
from cnf.training.processes import shared_seconds
from cnf.training.streams import RowStream
from cnf.version import VERSION


class InterruptedFit(Interrupted):
    """Ctrl-C during `cnf.fit_table`; `model` has the best weights so far."""

    def __init__(self, model: TableFlow) -> None:
        super().__init__(model.history)
        self.model = model


@with_gradients
@renamed_argument("watchers", "callbacks")
@removed_argument("drop_dependent", "dependent columns are set aside")
def fit_table(
    table: Any,
    *former: Any,
    valid: Any = None,
    columns: Collection[str] = (),
    context: Collection[str] = (),
    ignore: Collection[str] = (),
    kinds: Mapping[str, str] | None = None,
    missing: Collection[str] | None = None,
    strict: bool = False,
    array: str | None = None,
    weights: Any = None,
    seed: int = 0,
    hidden: tuple[int, int] | None = None,
    imputer: bool | None = None,
    any_subset: bool = False,
    source: Any = None,
    time: str | None = None,
    memory: str | int | None = None,
    device: str | torch.device = "cpu",
    announce: Callable[..., object] | None = None,
    **budget: Any,
) -> Any:
    """Fit the density of a table: of a file, or of a data frame of pandas, polars or pyarrow.

    The types of the columns are inferred (see `cnf.Schema.infer`) where `kinds` does not declare
    them. A table of continuous columns gets the flow and the recipe of `cnf.fit`; one with
    integers, categories, atoms or missing cells gets exact probabilities of its discrete states,
    and a flow over the numbers given those.

    Args:
        table: path of a csv, tsv, parquet, npy or npz file, a folder of such files or a pattern, or a
            data frame.
        valid: rows to validate by, as `table`; without them a tenth of the table is set apart.
        columns: names of the columns to model; default: all.
        context: names of columns that the density is conditioned on.
        ignore: names of columns that are left out.
        kinds: types of columns by name: "integer", "bounded:0:1", …
        missing: words that stand for missing cells; default: those that occur among numbers.
        strict: whether to refuse a table of which a column would be set aside.
        array: name of the array of an npz file that is the table.
        weights: name of the column with the weight of each row, or the weights (rows,), >= 0.
        seed: of everything random here.
        hidden: widths of the field; None chooses by rows and columns.
        imputer: whether to fit what `TableFlow.impute` draws missing cells from; None: where the
            table has missing cells. It takes a third of the seconds, or as many steps again.
        any_subset: whether to fit a conditional network too, which `TableFlow.marginal` and
            `TableFlow.conditional` ask; of a table with states it is the imputer.
        source: a table, as `table`, whose rows are to be carried to those of this one, for tables
            of continuous columns alone: the model starts from its density; see `cnf.fit`.
        time: name of the column that says when a row was seen, a number or a date: the model is then
            one flow through time, whose context that column is; see `cnf.fit_snapshots`. For tables
            of continuous columns alone.
        memory: what rows may take of it, "1GB" or bytes, beside the program itself. Where those of the
            files take more, the schema and all choices come from a sample of them, and the rows to
            learn from are read again and again. None reads them whole.
        device: where to compute.
        announce: called before the fit with lines on how the file is written and what each column
            is.
        **budget: steps, seconds, likelihood_share, checkpoint and callbacks, as in `cnf.fit`. By
            default the number of steps grows with the rows.

    Returns:
        The `TableFlow`, with the history of its fit as `history`. Its held-out NLL is that of
        whole rows.

    Raises:
        ValueError: for too few rows or weights that do not fit, or, as a `TableError`, a table that
            cannot be modeled.
        TrainingError: if training diverges for good.
        InterruptedFit: (a KeyboardInterrupt) on Ctrl-C while flows are being trained; its `model`
            has the best weights so far.

    Example:
        >>> frame = pd.DataFrame({"x": [0.1 * i**1.5 for i in range(200)], "group": list("ab") * 100})
        >>> model = fit_table(frame, steps=20, hidden=(8, 8))
        >>> bool(model.log_prob(frame).isfinite().all())
        True
    """
    if isinstance(table, TableFlow):
        return _former_call(table, *former, weights=weights, seed=seed, imputer=imputer, **budget)
    start = shared_seconds()
    if former:
        raise TypeError(f"fit_table: expected one table; got {len(former)} more arguments")
    kinds = with_pairs(kinds or {})
    beside = [weights] if isinstance(weights, str) else []
    if time is not None:
        _require_alone(weights=weights, source=source, memory=memory, context=tuple(context))
    moments = [] if time is None else [time]
    infer = partial(Schema.infer, kinds=kinds, context=context, missing=missing, strict=strict)
    options: dict[str, Any] = {
        "ignore": ignore,
        "kinds": kinds,
        "missing": missing,
        "array": array,
    }
    streamed = None
    if memory is not None:
        if weights is not None:
            raise ValueError("memory: expected no weights beside it; leave one of them out")
        streamed = streamed_table(
            table, memory, columns, context, infer, seed=seed, holds_out=valid is None, **options
        )
    if streamed is None:
        frame = table_frame(table, columns, [*context, *beside, *moments], **options)
        if beside:
            weights = numbers(frame[beside[0]])
        with told_of(table):
            schema = infer(frame.drop(columns=[*beside, *moments]))
            for name in moments:
                schema = with_moments(schema, frame[name], frame.columns.get_loc(name))
    else:
        frame, schema = streamed.train, streamed.schema
    origin = None if source is None else source_table(source, schema)
    frame_valid = None if valid is None else validation_table(valid, schema)
    if announce is not None:
        told = [] if streamed is None else [streamed.describe()]
        announce(*unusual_lines(table), *told, *(f"  {line}" for line in schema.lines()))
    rows = len(frame) - (_held_out(len(frame)) if schema.plain and valid is None else 0)
    if streamed is not None:
        rows = streamed.rows
        frame_valid = streamed.valid if valid is None else frame_valid
    if time is None:
        # What is asked of angles and places is the imputer's part, and it needs the default flow.
        asks = imputer or (any_subset and schema.charts is not None)
        model = default_table_flow(schema, rows, hidden=hidden, imputer=bool(asks), seed=seed)
    else:
        span = ends_of(schema.column(time), frame[time])
        model = default_moving_table(schema, rows, span, hidden=hidden, seed=seed)
    stream = None if streamed is None else streamed.stream(model)
    try:
        fit_table_flow(
            model.to(device),
            frame,
            frame_valid,
            weights=weights,
            seed=seed,
            imputer=imputer,
            any_subset=any_subset,
            source=origin,
            stream=stream,
            spent=shared_seconds() - start,
            **budget,
        )
    except Interrupted as stop:
        raise InterruptedFit(model) from stop
    return model


def _require_alone(**others: Any) -> None:
    """Refuse what a fit through time does not know."""
    if given := [name for name, value in others.items() if value]:
        raise ValueError(f"time: expected no {given[0]} beside it; leave one of them out")


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
    spent: float = 0.0,
    likelihood_share: float | None = None,
    checkpoint: str | Path | None = None,
    callbacks: tuple[Callback, ...] = (),
) -> History:
    """Fit a model that was made already, in place; its schema says what the columns are.

    Where the model has discrete states, equal rows count as one with the sum of their weights, in
    an order of their own: neither the order of the rows nor whether a weight or a repetition counts
    a row makes a difference.

    A `stream` of data frames holds the rows to learn from where they are too many for memory: the table
    is then a sample of them, which settles every choice, and other rows have to validate. A row that
    the columns cannot hold is left out.

    Arguments, errors and what is returned are those of `cnf.fit_table`, beside `spent`, seconds that
    are gone before; the history stands in the model too, with the rest of its metadata.

    Raises:
        Interrupted: (a KeyboardInterrupt) on Ctrl-C while flows are being trained.

    Example:
        >>> table = pd.DataFrame({"x": [0.1 * i**1.5 for i in range(200)], "group": list("ab") * 100})
        >>> model = TableFlow(Schema.infer(table), hidden=(8, 8))
        >>> fit_table_flow(model, table, steps=20).valid_nll == model.history.valid_nll
        True
    """
    start = shared_seconds()
    options: dict[str, Any] = {
        "seed": seed,
        "steps": steps,
        "seconds": seconds,
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
        held_out = _held_out(len(table)) if valid is None else len(valid)
        facts["rows"] = len(table) - (held_out if valid is None else 0)
        facts["valid_rows"] = held_out
    if stream is not None:
        facts["rows"] = stream.rows
    names = [
        [column.name for column in part] for part in (model.schema.modeled, model.schema.context)
    ]
    spent += shared_seconds() - start
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
    """The rows of a chunk that the model can hold, whose hashes are taken in."""
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
    """What is known of the rows of a plain table before its fit, and the fit."""
    known = plain_rows(model, rows, weighted=weighted)
    judges = None if valid is None else plain_rows(model, valid, weighted=False)
    train, held_out = held_out_split(known, options["seed"]) if judges is None else (known, judges)
    facts: dict[str, Any] = {
        "rows": len(train),
        "valid_rows": len(held_out),
        "digest": digest_of(_cells(train), _cells(held_out)),
        "quantiles": quantiles(model.numeric_columns, train.x, train.x.isfinite()),
    }
    if model.schema.charts is None:  # one Gaussian says nothing of a circle
        nll, error = gaussian_nll(train, held_out)
        facts["gaussian"] = {"nll": nll, "standard_error": error}
    if options["stream"] is not None:
        rows_of_chunk = partial(plain_rows, model, weighted=False)
        options = {**options, "stream": options["stream"].mapped(rows_of_chunk)}
    run = fit_plain if model.time is None else fit_moving
    return facts, partial(run, model, known, judges, **options)


def _cells(rows: Rows) -> Cells:
    """Rows of plain columns as encoded rows."""
    return Cells(rows.x, torch.zeros_like(rows.x, dtype=torch.long))


def _states_fit(
    model: TableFlow,
    rows: TableRows,
    valid: TableRows | None,
    options: dict[str, Any],
    *,
    imputer: bool | None,
) -> tuple[dict[str, Any], Callable[..., History]]:
    """The quantiles of a table with discrete states, and its fit.

    Raises:
        ValueError: for too few different rows.
    """
    rows = merged(rows)
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
        # New rows of discrete columns alone may well be equal to those of training.
        "digest": None if discrete else digest_of(train.cells, valid.cells),
    }
    return facts, partial(fit_states, model, train, valid, imputer=imputer, refit=refit, **options)


def _held_out(rows: int) -> int:
    """How many of the rows validate a fit."""
    return min(max(1, round(HELD_OUT * rows)), rows - 1)


def _former_call(
    model: TableFlow, table: pd.DataFrame, valid: pd.DataFrame | None = None, **options: Any
) -> History:
    """`fit_table(model, table, valid)`, as release 0.1 had it."""
    warnings.warn(
        "cnf.fit_table(model, table) is now cnf.fit_table(table), which returns the model; fit one"
        " that was made already with cnf.recipe.fit_table_flow. The old call goes in release 0.3",
        DeprecationWarning,
        stacklevel=4,
    )
    return fit_table_flow(model, table, options.pop("table_valid", valid), **options)
