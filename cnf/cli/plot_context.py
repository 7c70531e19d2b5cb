"""What `cnf plot` was asked for, as the context of a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from cnf.cli.data import read_data
from cnf.cli.model import Model, as_tensor
from cnf.cli.options import Color
from cnf.cli.reporting import rows_to_judge_by
from cnf.cli.typed import TypedModel
from cnf.pictures import PlotKind
from cnf.pictures.context import (
    PRINCIPAL,
    ROWS,
    NumericFlow,
    Pair,
    PlotContext,
    Sweep,
    TableRows,
    seeded,
)
from cnf.pictures.tables import table_rows
from cnf.rows import evenly_spaced

SWEPT = 41  # values of a context that is swept


@dataclass(frozen=True)
class PlotOptions:
    """What was typed after `cnf plot MODEL KIND`."""

    data: str | None = None
    axes: tuple[str, ...] = ()
    given: str | None = None
    sweep: str | None = None
    color: Color = Color.time


def plot_context(model: Model | TypedModel, kind: PlotKind, options: PlotOptions) -> PlotContext:
    """What the picture is drawn from.

    Raises:
        ValueError: for options, or a model, that do not fit the kind of picture.
    """
    if kind.data and options.data is None:
        raise ValueError(f"{kind.name}: needs rows of a table: --data DATA")
    if isinstance(model, TypedModel):
        return _typed_context(model, kind, options)
    model.flow.double().eval()  # float32 does not tell rows apart in columns far from zero
    sweep = _sweep(model, options) if kind.context == "swept" else None
    axes = chosen_axes(model.path, kind, model.columns, options.axes)
    held, data, held_out = None, None, None
    if kind.context == "rows" and options.data is not None:
        held_out = rows_to_judge_by(model, options.data)[0]
    elif kind.context in ("fixed", "swept"):
        held = model.given(options.given) if sweep is None else None
        data = _data(model, options.data)
    return PlotContext(
        str(model.path),
        model.columns,
        NumericFlow(model.flow, model.columns, held),
        model.flow.metadata,
        data,
        axes,
        options.color.value,
        sweep,
        held_out,
    )


def _typed_context(model: TypedModel, kind: PlotKind, options: PlotOptions) -> PlotContext:
    """The context of a picture of a typed table, which needs no flow over its numeric columns."""
    if not kind.table:
        raise ValueError(
            f"{model.path}: a model of a typed table has no {kind.name}; "
            "draw marginals, pairs, samples, history"
        )
    columns = [column.name for column in model.model.schema.modeled if column.numeric]
    given = None if kind.context == "none" else model.given(options.given)

    def whole() -> TableRows:
        schema = model.model.schema
        data = None if options.data is None else _some_rows(model, options.data)
        return table_rows(schema, data, model.sample(ROWS, given, seeded()))

    return PlotContext(
        str(model.path),
        columns,
        None,
        model.model.metadata,
        axes=chosen_axes(model.path, kind, columns, options.axes),
        whole=whole,
    )


def _some_rows(model: TypedModel, data: str) -> pd.DataFrame:
    """Evenly spaced rows of a file, typed as those of the model."""
    table, schema = pd.concat(model.chunks(data)), model.model.schema
    table = table.iloc[evenly_spaced(torch.empty(len(table)), ROWS).numpy()]
    return schema.decode(schema.encode(table, schema.modeled), schema.modeled)


def _data(model: Model, data: str | None) -> Tensor | None:
    """Evenly spaced rows of a table, as many as a picture can show."""
    if data is None:
        return None
    table = read_data(data, columns=model.columns)
    rows = as_tensor(table, model.columns, torch.device("cpu"))
    return rows[evenly_spaced(rows, ROWS)]


def _sweep(model: Model, options: PlotOptions) -> Sweep:
    """The context column that --sweep names, over its range, with the others as --given says.

    Raises:
        ValueError: if --sweep names no context column or no range.
    """
    if not model.context:
        raise ValueError(f"{model.path}: what-if needs a context to sweep, the model has none")
    name, low, high = _range(options.sweep)
    if name not in model.context or not -math.inf < low < high < math.inf:
        raise ValueError(
            f'{model.path}: expected --sweep "{model.context[0]}=LOW:HIGH", for one of its context '
            f"columns; got {options.sweep!r}"
        )
    quoted = f'"{name}"' if "," in name else name  # as --given spells it
    held = model.given(",".join(filter(None, (options.given, f"{quoted}={low}"))))
    assert held is not None, "the model has a context"
    values = torch.linspace(low, high, SWEPT, dtype=torch.float64)
    context = held.repeat(SWEPT, 1)
    context[:, model.context.index(name)] = values
    return Sweep(name, values, context)


def _range(text: str | None) -> tuple[str, float, float]:
    """The name and the ends in NAME=LOW:HIGH; no numbers where it is spelled otherwise.

    >>> _range("age=20:70"), _range("age")
    (('age', 20.0, 70.0), ('', nan, nan))
    """
    name, _, span = (text or "").rpartition("=")
    try:
        low, high = (float(end) for end in span.split(":"))
    except ValueError:
        return name, math.nan, math.nan
    return name, low, high


def chosen_axes(
    path: Path, kind: PlotKind, columns: list[str], names: tuple[str, ...]
) -> Pair | Literal["principal"]:
    """The places of the columns to show.

    Raises:
        ValueError: for other columns than the kind of picture needs.
    """
    count = len(columns)
    if kind.axes == "plane" and count != 2:
        raise ValueError(
            f"{path}: {kind.name} is drawn for 2 columns, the model has {count}; draw conditional"
        )
    if kind.axes == "pair" and count < 2:
        raise ValueError(
            f"{path}: {kind.name} needs two numeric columns, the model has {count}; draw marginals"
        )
    if names == (PRINCIPAL,) and kind.particles:
        return PRINCIPAL
    if names and (len(names) != 2 or not set(names) <= set(columns)):
        raise ValueError(
            f"--axes: expected two numeric columns of {', '.join(columns)}; got {', '.join(names)}"
        )
    first, second = names or (columns[0], columns[min(1, count - 1)])
    return columns.index(first), columns.index(second)
