"""The options of `cnf plot` as a plot context."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from cnf.cli.model import Model
from cnf.cli.options import Color
from cnf.cli.reporting import judging_table
from cnf.pictures import PlotKind
from cnf.pictures.context import PRINCIPAL, ROWS, Pair, PlotContext, Sweep, TableRows, seeded
from cnf.pictures.tables import some_rows, table_rows
from cnf.tables.held_out import held_out_rows
from cnf.tables.numeric_view import NumericView
from cnf.tables.spaces import pairs_of

SWEPT = 41  # values of a context column that is swept


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
    flow, columns = model.table_flow, model.numeric_columns
    show_time: Callable[[float], str] = str
    if kind.context == "time":
        show_time = flow.schema.spelling(model.time)
    axes = chosen_axes(model, kind, options.axes)
    numeric = None if flow.flow is None else NumericView(flow.flow, columns)
    judges, sweep, given, table = None, None, None, None
    if kind.context == "swept":
        sweep = _sweep(model, options)
    if kind.context == "rows" and options.data is not None:
        judges = held_out_rows(flow, judging_table(model, options.data))[0]
    if kind.context == "fixed":
        given = model.given(options.given)
        numeric = None if flow.flow is None else flow.numeric(given)
        table = None if options.data is None else some_rows(flow.schema, model.table(options.data))

    def whole() -> TableRows:
        samples = flow.sample(ROWS, given, generator=seeded())
        return table_rows(flow.schema, table, samples)

    return PlotContext(
        str(model.path),
        columns,
        numeric,
        flow.metadata.as_json(),
        None if table is None else flow.numeric_rows(table).x,
        axes,
        options.color.value,
        sweep,
        judges,
        whole,
        show_time,
    )


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
    model: Model, kind: PlotKind, names: tuple[str, ...]
) -> Pair | Literal["principal"]:
    """The places of the columns to show.

    Raises:
        ValueError: for other columns than the kind of picture needs.
    """
    path, columns, count = model.path, model.numeric_columns, len(model.numeric_columns)
    modeled = model.table_flow.schema.modeled
    if kind.axes == "sphere":
        return _sphere(model, kind, names)
    if kind.axes == "angles" and not any(column.kind == "angle" for column in modeled):
        raise ValueError(f"{path}: {kind.name} needs angles: cnf fit --type NAME=angle:360")
    if kind.axes == "plane" and count != 2:
        other = "conditional" if count > 2 else "marginals"
        raise ValueError(
            f"{path}: {kind.name} is drawn for 2 columns, the model has {count}; draw {other}"
        )
    if kind.axes == "pair" and count < 2:
        raise ValueError(
            f"{path}: {kind.name} needs two numeric columns, the model has {count}; draw marginals"
        )
    if not columns and not kind.table:
        raise ValueError(f"{path}: {kind.name} needs a numeric column; draw marginals")
    if names == (PRINCIPAL,) and kind.particles:
        return PRINCIPAL
    if names and (len(names) != 2 or not set(names) <= set(columns)):
        raise ValueError(
            f"--axes: expected two numeric columns of {', '.join(columns)}; got {', '.join(names)}"
        )
    first, second = map(columns.index, names) if names else (0, min(1, max(count - 1, 0)))
    return first, second


def _sphere(model: Model, kind: PlotKind, names: tuple[str, ...]) -> Pair:
    """The places of the longitude and the latitude to show, the first ones if none are named."""
    columns = model.numeric_columns
    pairs = pairs_of(model.table_flow.numeric_columns)
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
