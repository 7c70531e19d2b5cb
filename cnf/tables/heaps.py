"""Values of an integer column that stand out from their neighbors, and the grid closed up over
them.

Prices end in nines, weights are rounded to halves, wind speeds are sums of one lattice: no smooth
density follows that. Such values become atoms, and the density lives on what is left of the grid,
moved together, so that every value has one probability and all of them add up to one."""

from __future__ import annotations

import numpy as np

from cnf.tables.columns import Column

# A value stands out with so many times the rows of a value around it; around is this share of the
# distance between the quartiles, on both sides.
LEAD, AROUND = 3.0, 0.1
# A column is heaped where values that stand out hold this share of its rows.
HEAPED = 0.2
# What a value needs to be learnt by itself; and so much is left to the density at least.
SHARE, ROWS = 5e-4, 20
MOST = 256


def heaped_values(steps: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Which values become atoms: the frequent ones of a column where many rows stand out; else
    none.

    Args:
        steps: the different values, in steps of the grid, increasing (values,).
        counts: rows of each of them (values,).

    >>> heaped_values(np.arange(100), np.where(np.arange(100) % 10, 2, 80)).nonzero()[0].tolist()
    [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]
    >>> heaped_values(np.arange(100), np.full(100, 80)).nonzero()[0].tolist()
    []
    """
    rows = counts.sum()
    fewest = max(SHARE * rows, ROWS)
    frequent = counts >= fewest
    stands_out = frequent & (counts >= LEAD * _around(steps, counts))
    if counts[stands_out].sum() < HEAPED * rows:
        return np.zeros(len(steps), dtype=bool)
    order = np.argsort(-counts, kind="stable")
    left = rows - counts[order].cumsum()
    order = order[(left >= fewest) & frequent[order]][: min(MOST, len(steps) - 2)]
    return np.isin(np.arange(len(steps)), order)


def _around(steps: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean rows of the grid's values around each value, itself left out."""
    total = np.concatenate(([0], counts.cumsum()))
    quartiles = np.interp((0.25, 0.75), total[1:] / total[-1], steps)
    reach = max(2, round(AROUND * np.ptp(quartiles)))
    first, last = np.maximum(steps - reach, steps[0]), np.minimum(steps + reach, steps[-1])
    within = (
        total[np.searchsorted(steps, last, "right")] - total[np.searchsorted(steps, first, "left")]
    )
    return (within - counts) / np.maximum(last - first, 1)


def compact(values: np.ndarray, column: Column) -> np.ndarray:
    """Values beside the heaps of a column, each moved down by a step for every heap below it."""
    heaps = np.array(column.heaps)
    return values - np.searchsorted(heaps, values) * column.step if len(heaps) else values


def expand_compacted(steps: np.ndarray, column: Column) -> np.ndarray:
    """The whole steps that `compact` came from, in whole steps."""
    heaps = np.round(np.array(column.heaps) / column.step)
    return steps + np.searchsorted(heaps - np.arange(len(heaps)), steps, "right")
