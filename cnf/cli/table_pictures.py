"""Columns of any type in pictures: categories as bars, numbers as everywhere else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cnf.tables import Column
from cnf.tables.cells import levels

# Names of levels under a panel, and letters of each.
MOST_NAMES, MOST_LETTERS = 12, 9


def column_codes(table: pd.DataFrame, columns: Sequence[Column]) -> np.ndarray:
    """Cells as numbers (rows, columns): categories by their place among the levels, NaN where
    missing."""
    return np.column_stack([_codes(table[column.name], column) for column in columns])


def _codes(series: pd.Series, column: Column) -> np.ndarray:
    if column.numeric:
        return column.type.read(series)
    places = {level: float(i) for i, level in enumerate(column.levels)}
    return np.array([places.get(cell, np.nan) for cell in levels(series)])


def name_levels(ax: Axes, column: Column) -> None:
    """Write the levels of a column under their bars; every second, third, … where they are many."""
    if not column.levels:
        return
    names = [str(level) for level in column.levels]
    shown = range(0, len(names), -(-len(names) // MOST_NAMES))
    cut = [name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…" for name in names]
    crowded = sum(len(cut[i]) + 1 for i in shown) > 2 * MOST_LETTERS
    ax.set_xticks(list(shown), [cut[i] for i in shown], rotation=90 if crowded else 0)
