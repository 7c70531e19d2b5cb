"""The options of `cnf plot` as a plot context."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from cnf.cli.model import Model
from cnf.cli.options import Color
from cnf.cli.reporting import judging_table
from cnf.flows.present_columns import flow_of_present
from cnf.pictures import PlotKind
from cnf.pictures.context import PRINCIPAL, ROWS, Pair, PlotContext, Sweep, TableRows, seeded
from cnf.pictures.tables import some_rows, table_rows
from cnf.tables import Column, TableFlow
from cnf.tables.held_out import held_out_rows
from cnf.tables.numeric_view import NumericView
from cnf.tables.spaces import pairs_of

SWEPT = 41  # values of a context column that is swept
FEWEST_COLUMNS = {"pair": 2, "sphere": 2}  # that a kind of picture needs, by its axes


@dataclass(frozen=True)
class PlotOptions:
    """What was typed after `cnf plot MODEL KIND`."""

    data: str | None = None
    axes: tuple[str, ...] = ()
    given: str | None = None
    sweep: str | None = None
    color: Color = Color.time


def plot_context(model: Model, kind: PlotKind, options: PlotOptions) -> PlotContext:
    """What the picture is drawn from.

    Raises:
        ValueError: for options, or a model, that do not fit the kind of picture.
    """
    if kind.data and options.data is None:
        raise ValueError(f"{kind.name}: needs rows of a table: --data DATA")
    flow, judges, sweep, given = model.table_flow, None, None, None
    table = _rows_to_draw(model, kind, options)
    present = _present(model, kind, options.axes, table)
    columns = list(compress(flow.numeric_columns, present))
    names = [column.name for column in columns]
    show_time: Callable[[float], str] = str
    if kind.context == "time":
        show_time = flow.schema.spelling(model.time)
    axes = chosen_axes(model, kind, options.axes, columns)
    numeric = None if flow.flow is None else NumericView(flow.flow, names)
    if kind.context == "swept":
        sweep = _sweep(model, options)
    if kind.context == "rows" and table is not None:
        judges = held_out_rows(flow, table, present)[0]
        if flow.flow is not None:
            numeric = NumericView(flow_of_present(flow.flow, judges.context), names)
    if kind.context == "fixed":
        given = model.given(options.given)
        numeric = None if flow.flow is None else flow.numeric(given, present=present)

    def whole() -> TableRows:
        samples = flow.sample(ROWS, given, generator=seeded())
        return table_rows(flow.schema, table, samples)

    return PlotContext(
        str(model.path),
        names,
        numeric,
        flow.metadata.as_json(),
        _numbers(flow, table, present) if kind.context == "fixed" else None,
        axes,
        options.color.value,
        sweep,
        judges,
        whole,
        show_time,
    )


def _rows_to_draw(model: Model, kind: PlotKind, options: PlotOptions) -> pd.DataFrame | None:
    """The rows of --data for a picture that has a use for them."""
    if options.data is None:
        return None
    if kind.context == "rows":
        return judging_table(model, options.data)
    schema = model.table_flow.schema
    return some_rows(schema, model.table(options.data)) if kind.context == "fixed" else None


def _present(
    model: Model, kind: PlotKind, names: tuple[str, ...], table: pd.DataFrame | None
) -> Tensor:
    """The numeric columns (numeric,) that are drawn: those that rows of --data hold together, and all if
    these are too few for the kind of picture."""
    columns = model.numeric_columns
    every = torch.ones(len(columns), dtype=torch.bool)
    if table is None or kind.table or kind.axes == "plane" or not columns:
        return every
    present = model.table_flow.most_numbers(table, [name for name in names if name in columns])
    return present.cpu() if present.sum() >= FEWEST_COLUMNS.get(kind.axes, 1) else every


def _numbers(flow: TableFlow, table: pd.DataFrame | None, present: Tensor) -> Tensor | None:
    """The rows to draw that hold these numbers; None if there are none."""
    rows = None if table is None else flow.numeric_rows(table, present).x
    return rows if rows is not None and len(rows) else None


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
    views = [model.table_flow.numeric(held.assign(**{name: value})) for value in values.tolist()]
    contexts = [view.context for view in views if view.context is not None]
    return Sweep(name, values, torch.stack(contexts))


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
    model: Model, kind: PlotKind, names: tuple[str, ...], shown: list[Column]
) -> Pair | Literal["principal"]:
    """The places of the columns to show, among those that are drawn.

    Raises:
        ValueError: for other columns than the kind of picture needs.
    """
    if kind.axes == "sphere":
        return _sphere(model, kind, names, shown)
    need = _lacking(model, kind, len(shown))
    if need:
        raise ValueError(f"{model.path}: {kind.name} {need}")
    if names == (PRINCIPAL,) and kind.particles:
        return PRINCIPAL
    columns = [column.name for column in shown]
    if names and (len(names) != 2 or not set(names) <= set(columns)):
        raise ValueError(
            f"--axes: expected two numeric columns of {', '.join(columns)}; got {', '.join(names)}"
        )
    first, second = map(columns.index, names) if names else (0, int(len(columns) > 1))
    return first, second


def _lacking(model: Model, kind: PlotKind, count: int) -> str | None:
    """What a kind of picture needs that a model with so many numeric columns has not."""
    modeled = model.table_flow.schema.modeled
    if kind.axes == "angles" and not any(column.kind == "angle" for column in modeled):
        return "needs angles: cnf fit --type NAME=angle:360"
    if kind.axes == "plane" and count != 2:
        other = "conditional" if count > 2 else "marginals"
        return f"is drawn for 2 columns, the model has {count}; draw {other}"
    if kind.axes == "pair" and count < 2:
        return f"needs two numeric columns, the model has {count}; draw marginals"
    if not count and not kind.table:
        return "needs a numeric column; draw marginals"
    return None


def _sphere(model: Model, kind: PlotKind, names: tuple[str, ...], shown: list[Column]) -> Pair:
    """The places of the longitude and the latitude to show, the first ones if none are named."""
    columns, pairs = [column.name for column in shown], pairs_of(shown)
    known = {frozenset(columns[place] for place in pair): pair for pair in pairs}
    if not pairs:
        raise ValueError(
            f"{model.path}: {kind.name} needs a longitude and a latitude: cnf fit --type"
            " LON,LAT=sphere"
        )
    if names and frozenset(names) not in known:
        spelled = " or ".join(",".join(columns[place] for place in pair) for pair in pairs)
        raise ValueError(f"--axes: expected {spelled}; got {','.join(names)}")
    return known[frozenset(names)] if names else pairs[0]
