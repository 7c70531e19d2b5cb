"""Heaping: values of an integer column that occur far more often than their neighbors, or are few.

Prices end in nines, and weights are rounded to halves. A smooth density cannot represent that, nor the
few values of a count of children. Such values become atoms, and the rest of the grid is compacted: it
moves down by one step for every atom below. Every value then has one probability, and the
probabilities sum to one.
"""

from __future__ import annotations

import numpy as np

from cnf.tables.columns import Column

# A value is prominent if it has this many times the mean rows of the values around it, which lie within
# this fraction of the interquartile range on either side.
LEAD, AROUND = 3.0, 0.1
# A column is heaped if prominent values have this fraction of its rows.
HEAPED = 0.2
# A column is coarse if its interquartile range has fewer steps than this, and if values with this many
# rows have this fraction of all rows.
COARSE_STEPS, COARSE_ROWS, COARSE_SHARE = 6, 100, 0.9
# Fewest rows of an atom, as a fraction and as a number; as many must remain for the density.
SHARE, ROWS = 5e-4, 20
# Largest number of atoms in a column.
MOST = 256


def heaped_values(steps: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The values that become atoms: the frequent ones of a column with prominent values or few
    values; none otherwise.

    Args:
        steps: the distinct values, in steps of the grid, increasing (values,).
        counts: number of rows of each value (values,).

    >>> heaped_values(np.arange(100), np.where(np.arange(100) % 10, 2, 80)).nonzero()[0].tolist()
    [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]
    >>> heaped_values(np.arange(100), np.full(100, 80)).nonzero()[0].tolist()
    []
    >>> heaped_values(np.arange(6), np.array([900, 800, 400, 150, 20, 10])).nonzero()[0].tolist()
    [0, 1, 2, 3]
    """
    rows = counts.sum()
    fewest = max(SHARE * rows, ROWS)
    frequent = counts >= fewest
    stands_out = frequent & (counts >= LEAD * _around(steps, counts))
    if counts[stands_out].sum() < HEAPED * rows and not _coarse(steps, counts):
        return np.zeros(len(steps), dtype=bool)
    order = np.argsort(-counts, kind="stable")
    left = rows - counts[order].cumsum()
    order = order[(left >= fewest) & frequent[order]][: min(MOST, len(steps) - 2)]
    return np.isin(np.arange(len(steps)), order)


def _around(steps: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean rows of the grid values around each value, without the value itself."""
    total = np.concatenate(([0], counts.cumsum()))
    reach = max(2, round(AROUND * _interquartile_range(steps, counts)))
    first, last = np.maximum(steps - reach, steps[0]), np.minimum(steps + reach, steps[-1])
    within = (
        total[np.searchsorted(steps, last, "right")] - total[np.searchsorted(steps, first, "left")]
    )
    return (within - counts) / np.maximum(last - first, 1)


def _interquartile_range(steps: np.ndarray, counts: np.ndarray) -> float:
    return float(np.ptp(np.interp((0.25, 0.75), counts.cumsum() / counts.sum(), steps)))


def _coarse(steps: np.ndarray, counts: np.ndarray) -> bool:
    """Whether a column has few values, each of which has many rows."""
    frequent = counts[counts >= COARSE_ROWS].sum() >= COARSE_SHARE * counts.sum()
    return bool(frequent and _interquartile_range(steps, counts) < COARSE_STEPS)


def compact(values: np.ndarray, column: Column) -> np.ndarray:
    """Values that are not atoms, each moved down by one step for every heaped value below it."""
    if column.step is None or not column.heaped_values:
        return values
    return values - np.searchsorted(np.array(column.heaped_values), values) * column.step


def expand_compacted(steps: np.ndarray, column: Column) -> np.ndarray:
    """The integer steps before `compact`, from compacted integer steps."""
    heaped = np.round(np.array(column.heaped_values) / (column.step or 1.0))
    return steps + np.searchsorted(heaped - np.arange(len(heaped)), steps, "right")
