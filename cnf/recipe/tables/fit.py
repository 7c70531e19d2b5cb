"""Fit a model to a table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from inspect import signature
from typing import Any

import pandas as pd
import torch

from cnf.deprecation import removed_argument, renamed_argument
from cnf.inputs import as_device, as_seed
from cnf.recipe.architecture import default_moving_table, default_table_flow
from cnf.recipe.tables.model_fit import fit_table_flow
from cnf.recipe.tables.reading import (
    WholeTable,
    source_table,
    unusual_lines,
    validation_table,
    whole_table,
)
from cnf.recipe.tables.streaming import StreamedTable, streamed_table
from cnf.tables.column_types.circular import with_pairs
from cnf.tables.dataframes import path_or_rows
from cnf.tables.formats import names_of
from cnf.tables.model import TableFlow
from cnf.tables.moments import ends_of
from cnf.tables.schema import Schema
from cnf.training.errors import Interrupted
from cnf.training.history import History
from cnf.training.modes import with_gradients
from cnf.training.processes import shared_seconds


class InterruptedFit(Interrupted):
    """Ctrl-C during `cnf.fit_table`; its `model` has the best weights so far."""

    def __init__(self, model: TableFlow) -> None:
        super().__init__(model.history)
        self.model = model


@with_gradients
@renamed_argument("watchers", "callbacks")
@removed_argument("drop_dependent", "dependent columns are left out")
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
    """Fit the density of a table: a file, or a data frame of pandas, polars or pyarrow.

    The types of columns that `kinds` does not declare are inferred (see `cnf.Schema.infer`). A table of
    continuous columns gets the flow and the recipe of `cnf.fit`. A table with integers, categories,
    atoms or missing cells gets exact probabilities of its discrete states, and a flow over the
    numbers given the states.

    Args:
        table: path of a file in a format that `cnf fit` reads, a folder of such files, a pattern, or a
            data frame.
        valid: validation rows, in the same form as `table`; by default a tenth of the table is held out.
        columns: names of the columns to model; default: all.
        context: names of columns that the density is conditioned on.
        ignore: names of columns that are left out.
        kinds: types of columns by name: "integer", "bounded:0:1", …
        missing: words that mark missing cells; default: those that occur among numbers.
        strict: whether to raise an error if a column would be set aside.
        array: name of the array in an npz file that holds the table.
        weights: name of the column with the weight of each row, or the weights (rows,), >= 0.
        seed: random seed.
        hidden: widths of the field; None chooses them by rows and columns.
        imputer: whether to fit the model from which `TableFlow.impute` draws missing cells; None fits
            it if the table has missing cells. It takes a third of the seconds, or as many steps again.
        any_subset: whether to fit a conditional network for `TableFlow.marginal` and
            `TableFlow.conditional`; for a table with discrete states, the imputer is that network.
        source: a table, in the same form as `table`, whose rows are to be transported to those of this
            one. The density of the source is then the base; see `cnf.fit`. Both tables must have
            continuous columns only.
        time: name of the column with the observation time of a row, a number or a date. The model is
            then one flow through time, with this column as context; see `cnf.fit_snapshots`. The other
            columns must be continuous.
        memory: memory for rows, such as "1GB" or a number of bytes, in addition to the program itself.
            If the rows of the files need more, the schema and all choices come from a sample, and the
            training rows are read repeatedly. None reads all rows at once.
        device: device of the computation.
        announce: function that is called before the fit with lines about the file format and about
            each column.
        **budget: steps, seconds, clock, likelihood_share, checkpoint and callbacks, as in `cnf.fit`. By
            default the number of steps grows with the rows.

    Returns:
        The `TableFlow`, with the history of its fit as `history`. Its held-out NLL is that of whole
        rows.

    Raises:
        ValueError: for too few rows, or weights that do not match the rows; as a `TableError`, for a
            table that cannot be modeled.
        TrainingError: if training diverges for good.
        InterruptedFit: (a KeyboardInterrupt) on Ctrl-C during training; its `model` has the best
            weights so far.

    Example:
        >>> frame = pd.DataFrame({"x": [0.1 * i**1.5 for i in range(200)], "group": list("ab") * 100})
        >>> model = fit_table(frame, steps=20, hidden=(8, 8))
        >>> bool(model.log_prob(frame).isfinite().all())
        True
    """
    if isinstance(table, TableFlow):
        return _former_call(table, *former, weights=weights, seed=seed, imputer=imputer, **budget)
    _require_known(budget)
    clock = budget.get("clock", shared_seconds)
    start = clock()
    if former:
        raise TypeError(f"fit_table: expected one table; got {len(former)} more arguments")
    table, valid, source = (
        None if rows is None and name != "table" else path_or_rows(rows, name)
        for name, rows in (("table", table), ("valid", valid), ("source", source))
    )
    seed, device = as_seed(seed), as_device(device)
    columns, context, ignore = map(names_of, (columns, context, ignore))
    if time is not None:
        _require_alone(
            "time", weights=weights, source=source, memory=memory, context=tuple(context) or None
        )
    if memory is not None:
        _require_alone("memory", weights=weights)
    kinds = with_pairs(kinds or {})
    read = _read(
        table,
        columns,
        context,
        partial(Schema.infer, kinds=kinds, context=context, missing=missing, strict=strict),
        weights=weights,
        time=time,
        memory=memory,
        seed=seed,
        holds_out=valid is None,
        ignore=ignore,
        kinds=kinds,
        missing=missing,
        array=array,
    )
    schema = read.schema
    origin = None if source is None else source_table(source, schema)
    judges = read.valid if valid is None else validation_table(valid, schema)
    if announce is not None:
        lines = (f"  {line}" for line in schema.lines())
        announce(*unusual_lines(table), *read.describe(), *lines)
    # The imputer answers questions about angles and spheres, and it needs the default flow.
    asks = imputer or (any_subset and schema.charts is not None)
    model = _new_model(read, time, hidden=hidden, imputer=bool(asks), seed=seed)
    stream = read.stream(model)
    try:
        fit_table_flow(
            model.to(device),
            read.train,
            judges,
            weights=read.weights,
            seed=seed,
            imputer=imputer,
            any_subset=any_subset,
            source=origin,
            stream=stream,
            spent=clock() - start,
            **budget,
        )
    except Interrupted as stop:
        raise InterruptedFit(model) from stop
    return model


def _require_known(budget: Iterable[str]) -> None:
    """Raise a TypeError for an unknown argument."""
    known = [*signature(fit_table).parameters, *signature(fit_table_flow).parameters]
    for name in budget:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise TypeError(f"fit_table: unexpected argument {name!r}{hint}")


def _require_alone(argument: str, **others: Any) -> None:
    """Raise a ValueError for an argument that excludes another one."""
    for name, value in others.items():
        if value is not None:
            raise ValueError(f"{argument}: expected no {name} beside it; leave one of them out")


def _read(
    table: Any,
    *asked: Any,
    memory: str | int | None,
    seed: int,
    weights: Any,
    time: str | None,
    **options: Any,
) -> WholeTable | StreamedTable:
    """The rows in memory if they fit, otherwise a sample and a stream."""
    if memory is not None:
        streamed = streamed_table(table, memory, *asked, seed=seed, **options)
        if streamed is not None:
            return streamed
    return whole_table(table, *asked, weights=weights, time=time, **options)


def _new_model(
    read: WholeTable | StreamedTable,
    time: str | None,
    *,
    hidden: tuple[int, int] | None,
    imputer: bool,
    seed: int,
) -> TableFlow:
    """The model to fit, whose size follows from the rows."""
    schema = read.schema
    if time is None:
        return default_table_flow(schema, read.rows, hidden=hidden, imputer=imputer, seed=seed)
    span = ends_of(schema.column(time), read.train[time])
    return default_moving_table(schema, read.rows, span, hidden=hidden, seed=seed)


def _former_call(
    model: TableFlow, table: pd.DataFrame, valid: pd.DataFrame | None = None, **options: Any
) -> History:
    """The call `fit_table(model, table, valid)` of release 0.1."""
    warnings.warn(
        "cnf.fit_table(model, table) is now cnf.fit_table(table), which returns the model; fit an"
        " existing one with cnf.recipe.fit_table_flow. The old call will be removed in release 0.3",
        DeprecationWarning,
        stacklevel=4,
    )
    return fit_table_flow(model, table, options.pop("table_valid", valid), **options)
