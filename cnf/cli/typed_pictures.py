"""Pictures of models of typed tables: categories as bars, numbers as everywhere else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnf import plotting
from cnf.cli.options import Kind
from cnf.cli.plot_context import ROWS
from cnf.cli.typed import TypedModel
from cnf.tables import Column
from cnf.tables.cells import levels, numbers

DRAWN = (Kind.marginals, Kind.pairs, Kind.samples, Kind.history)
# Names of levels under a panel, and letters of each.
MOST_NAMES, MOST_LETTERS = 12, 9


def draw_typed(
    typed: TypedModel, kind: Kind, *, data: str | None, axes: tuple[str, ...], given: str | None
) -> Figure:
    """MarginalTransform of all columns, pairs or samples of the numeric ones, or the history.

    Raises:
        ValueError: for another kind, a context or table that does not fit, or columns that are not
            numeric.
    """
    if kind is Kind.history:
        if "history" not in typed.model.metadata:
            raise ValueError(
                f"{typed.path}: the model has no history; `cnf fit` writes models that do"
            )
        return plotting.history(typed.model.metadata["history"]["records"])[0].figure
    if kind not in DRAWN:
        raise ValueError(
            f"{typed.path}: a model of a typed table has no {kind.value}; "
            f"draw {', '.join(known.value for known in DRAWN)}"
        )
    tables = [] if data is None else [_some_rows(typed, data)]
    tables.append(typed.sample(ROWS, typed.given(given), torch.Generator().manual_seed(0)))
    if kind is Kind.marginals:
        return _marginals(typed.model.schema.modeled, tables)
    return _numbers(typed, kind, axes, tables)


def _some_rows(typed: TypedModel, data: str) -> pd.DataFrame:
    """Rows of a file, spread evenly over it, typed as those of the model."""
    table, schema = pd.concat(typed.chunks(data)), typed.model.schema
    table = table.iloc[np.linspace(0, len(table) - 1, min(ROWS, len(table))).round().astype(int)]
    return schema.decode(schema.encode(table, schema.modeled), schema.modeled)


def _codes(table: pd.DataFrame, column: Column) -> np.ndarray:
    """Cells as numbers: categories by their place among the levels; NaN where missing."""
    if column.numeric:
        return numbers(table[column.name])
    places = {level: float(i) for i, level in enumerate(column.levels)}
    return np.array([places.get(cell, np.nan) for cell in levels(table[column.name])])


def _marginals(columns: tuple[Column, ...], tables: list[pd.DataFrame]) -> Figure:
    """Every column of samples, over the data if there are rows."""
    rows = [np.column_stack([_codes(table, column) for column in columns]) for table in tables]
    axes = plotting.marginals(*rows, names=[column.name for column in columns])
    for ax, column in zip(axes, columns):
        if column.levels:
            _name_levels(ax, [str(level) for level in column.levels])
    return axes[0].figure


def _name_levels(ax: Axes, names: list[str]) -> None:
    """The levels under their bars; every second, third, … where they are many."""
    shown = range(0, len(names), -(-len(names) // MOST_NAMES))
    cut = [name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…" for name in names]
    crowded = sum(len(cut[i]) + 1 for i in shown) > 2 * MOST_LETTERS
    ax.set_xticks(list(shown), [cut[i] for i in shown], rotation=90 if crowded else 0)


def _numbers(
    typed: TypedModel, kind: Kind, axes: tuple[str, ...], tables: list[pd.DataFrame]
) -> Figure:
    """Pairs of the numeric columns, or two of them; rows with a missing cell among them are left
    out."""
    numeric = [column for column in typed.model.schema.modeled if column.numeric]
    wanted = axes or tuple(
        column.name for column in numeric[: 2 if kind is Kind.samples else None]
    )
    chosen = [column for column in numeric if column.name in wanted]
    if len(chosen) < len(wanted) or len(chosen) < 2 or (kind is Kind.samples and len(chosen) > 2):
        raise ValueError(
            f"{typed.path}: {kind.value} needs two numeric columns of "
            f"{', '.join(column.name for column in numeric)}; got {', '.join(wanted)}"
        )
    chosen.sort(key=lambda column: wanted.index(column.name))
    rows = [np.column_stack([_codes(table, column) for column in chosen]) for table in tables]
    rows = [part[np.isfinite(part).all(1)] for part in rows]
    names = [column.name for column in chosen]
    if kind is Kind.pairs:
        return plotting.pairs(*rows, names=names)[0, 0].figure
    over = rows[0] if len(rows) > 1 else None
    return plotting.samples(rows[-1], over=over, names=names).figure
