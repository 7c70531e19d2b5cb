"""Whether a density is calibrated: ranks of rows among draws, and the share of rows in its
regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import binom

from cnf.plotting.arrays import Array, column_names, numbers, table
from cnf.plotting.columns import row_of_panels
from cnf.plotting.style import FAINT, INK, MODEL, figure, label, panels, styled

RANK_BINS = 20
# Times 1/√n: 95 of 100 uniform samples keep their distribution function this close.
KOLMOGOROV = 1.3581
WITHIN = 0.99  # of the bars of a calibrated density that lie in the band


@styled
def pit(
    ranks: Array, *, names: Sequence[str] | None = None, axes: Sequence[Axes] | None = None
) -> np.ndarray:
    """Draw histograms of ranks (n, dim) between 0 and 1, one panel per column; return the axes.

    The rank of a value under a density is its probability integral transform, u = P(X ≤ x):
    uniform if the density is calibrated (Dawid 1984), ∪-shaped if it is too narrow, ∩-shaped if it
    is too wide. The gray band contains 99 of 100 bars of a calibrated density. Raises ValueError
    for wrong shapes and ranks outside [0, 1].

    >>> axes = pit(np.linspace(0, 1, 400).reshape(200, 2), names=["age", "income"])
    >>> [ax.get_xlabel() for ax in axes]
    ['rank of age', 'rank of income']
    """
    values = table(ranks, "ranks")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(
            f"ranks: expected numbers from 0 to 1, got {values.min()} to {values.max()}"
        )
    count, dim = values.shape
    names = column_names(names, dim)
    shown = panels(axes, dim, "columns", lambda: row_of_panels(dim))
    low, high = (
        binom.ppf(q, count, 1 / RANK_BINS) * RANK_BINS / count
        for q in ((1 - WITHIN) / 2, (1 + WITHIN) / 2)
    )
    for ax, column, name in zip(shown, values.T, names):
        heights, edges = np.histogram(column, RANK_BINS, (0, 1), density=True)
        ax.axhspan(low, high, color=FAINT, alpha=0.5, linewidth=0)
        ax.stairs(heights, edges, color=MODEL, linewidth=1.2)
        ax.set(xlim=(0, 1), ylim=(0, max(2.0, 1.1 * heights.max())))
        ax.set(xticks=(0, 0.5, 1), yticks=(0, 1, 2))
        label(ax, f"rank of {name}", "")
    return shown


@styled
def calibration(shares: Array, *, ax: Axes | None = None) -> Axes:
    """Draw the share of rows that lie in each highest-density region against the region's
    probability.

    `shares` (n,) is, row by row, the probability of the smallest highest-density region that
    contains the row. It is uniform if the density is calibrated, and the curve is then the
    diagonal. The gray Kolmogorov band contains the complete curve of 95 of 100 calibrated
    densities. Raises ValueError for another shape and for numbers outside [0, 1].

    >>> ax = calibration(np.linspace(0, 1, 100))
    >>> ax.get_ylabel()
    'share of rows inside'
    """
    values = np.sort(numbers(shares))
    if values.ndim != 1 or not len(values) or not (values[0] >= 0 and values[-1] <= 1):
        raise ValueError(
            f"shares: expected numbers from 0 to 1, shape (n,) with n ≥ 1, got {values.shape}"
        )
    ax = figure()[1][0, 0] if ax is None else ax
    width = KOLMOGOROV / np.sqrt(len(values))
    ends = np.array([0.0, 1.0])
    ax.fill_between(ends, ends - width, ends + width, color=FAINT, alpha=0.5, linewidth=0)
    ax.plot(ends, ends, color=INK, linewidth=0.6)
    steps = np.concatenate([[0.0], values, [1.0]])
    inside = np.concatenate([[0.0], np.arange(1, len(values) + 1) / len(values), [1.0]])
    ax.step(steps, inside, where="post", color=MODEL)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    label(ax, "probability of the region", "share of rows inside")
    return ax
