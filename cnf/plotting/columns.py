"""Plots of tables with many columns: single columns and pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cnf.plotting.arrays import Array, column_names, table
from cnf.plotting.style import DATA, FAINT, MODEL, column_range, figure, label, panels, styled

MOST_COLUMNS = 10  # of a pair plot
MOST_POINTS = 2000  # in one of its panels
BINS = 40
ROOM = 800.0  # size of type times letters that fit beside each other along a page
JITTER = 0.35  # half the width, in levels, over which the points of one level are spread
MOST_NAMES, MOST_LETTERS = 12, 9  # of levels beside an axis

Levels: TypeAlias = "Sequence[Sequence[str] | None]"
Formats: TypeAlias = "Mapping[int, Callable[[float], str]]"
NO_FORMATS: Formats = MappingProxyType({})


def bin_edges(column: np.ndarray, index: int) -> np.ndarray:
    """Edges of bins over the range of a column; every bin holds equally many integers if these are
    all."""
    finite = column[np.isfinite(column)]
    low, high = column_range(column, index, (0.005, 0.995), 0.1)
    if (finite == finite.round()).all():
        low, high = max(finite.min(), np.floor(low)), min(finite.max(), np.ceil(high))
        step = float(np.ceil((high - low + 1) / BINS))
        return np.arange(low, high + step + 1, step) - 0.5
    return np.linspace(low, high, BINS + 1)


def heights(column: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The density of a column in each bin; what lies outside the edges is missing from the
    area."""
    counts = np.histogram(column[np.isfinite(column)], edges)[0]
    return counts / (max(1, np.isfinite(column).sum()) * np.diff(edges))


def draw_marginal(
    ax: Axes,
    data: np.ndarray,
    samples: np.ndarray | None,
    index: int,
    levels: Sequence[str] | None = None,
) -> None:
    """One column: the data as a filled histogram, samples as steps over it, in the same bins; one
    bin for each level of a categorical column."""
    edges = bin_edges(data, index) if levels is None else np.arange(len(levels) + 1) - 0.5
    ax.stairs(heights(data, edges), edges, fill=True, color=FAINT, label="data")
    if samples is not None:
        ax.stairs(heights(samples, edges), edges, color=MODEL, linewidth=1.2, label="samples")
    ax.set(xlim=edges[[0, -1]], ylim=(0, None), yticks=[])
    ax.spines["left"].set_visible(False)


def same_columns(data: Array, samples: Array | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Both tables as arrays with the same columns."""
    rows = table(data, "data")
    return rows, None if samples is None else table(samples, "samples", columns=rows.shape[1])


def level_names(levels: Levels | None, dim: int) -> list[Sequence[str] | None]:
    """The names of each column's levels; None for a numeric column."""
    if levels is None:
        return [None] * dim
    if len(levels) != dim:
        raise ValueError(f"levels: expected an entry for each of {dim} columns, got {len(levels)}")
    return list(levels)


def name_levels(axis: Axis, names: Sequence[str]) -> None:
    """The levels beside their ticks; every second, third, … where there are many."""
    shown = range(0, len(names), -(-len(names) // MOST_NAMES))
    cut = [_cut(name) for name in names]
    crowded = sum(len(cut[i]) + 1 for i in shown) > 2 * MOST_LETTERS
    turned = crowded and isinstance(axis, XAxis)
    axis.set_ticks(list(shown), [cut[i] for i in shown], rotation=90 if turned else 0)


def format_ticks(axis: Axis, text: Callable[[float], str]) -> None:
    """Two or three ticks with the text of their numbers."""
    axis.set_major_locator(MaxNLocator(2, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda number, _: text(number)))


def _cut(name: str) -> str:
    """A name without its middle where it is long: dates and codes differ at their ends."""
    if len(name) <= MOST_LETTERS:
        return name
    kept = MOST_LETTERS - 1
    return f"{name[: kept // 2]}…{name[-(kept - kept // 2) :]}"


@styled
def marginals(
    data: Array,
    samples: Array | None = None,
    *,
    names: Sequence[str] | None = None,
    levels: Levels | None = None,
    formats: Formats = NO_FORMATS,
    axes: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Draw the distribution of every column of data (n, dim) and, over it, of samples (m, dim);
    return the axes.

    Bins cover the data's range except its extreme half percent. The area of a histogram is the
    share of rows inside, so samples outside the range show as missing area. Bins of integers are
    centered on them. `levels` has an entry for each column: None for a numeric column, and the
    names of the levels for a categorical one, whose cells are 0, 1, …. `formats` has functions
    from a number to its text, such as a date, by the index of the column. NaN is a missing cell.

    Raises: ValueError: for wrong shapes, and for a column without a finite value.

    >>> axes = marginals(torch.rand(50, 3), torch.rand(90, 3), names=["age", "income", "height"])
    >>> [ax.get_xlabel() for ax in axes]
    ['age', 'income', 'height']
    """
    rows, drawn = same_columns(data, samples)
    dim = rows.shape[1]
    names, levels = column_names(names, dim), level_names(levels, dim)
    shown = panels(axes, dim, "columns", lambda: row_of_panels(dim))
    for i, (ax, name, known) in enumerate(zip(shown, names, levels)):
        draw_marginal(ax, rows[:, i], None if drawn is None else drawn[:, i], i, known)
        label(ax, name, "")
        if known is not None:
            name_levels(ax.xaxis, known)
        if i in formats:
            format_ticks(ax.xaxis, formats[i])
    if drawn is not None:
        legend_above(shown[0])
    return shown


def legend_above(ax: Axes) -> None:
    """The legend of one panel, in a line above the whole figure."""
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=2)


def row_of_panels(count: int) -> np.ndarray:
    """Small axes (count,) in rows of up to four; the last row may be shorter."""
    across = min(count, 4)
    page, grid = figure(-(-count // across), across, panel=(1.7, 1.4))
    for ax in grid.ravel()[count:]:
        page.delaxes(ax)
    return grid.ravel()[:count]


def square_of_panels(count: int) -> np.ndarray:
    """A page width of small axes, each of one to two inches."""
    side = min(max(7.0 / count, 1.0), 2.0)
    return figure(count, count, panel=(side, side))[1]


@styled
def pairs(
    data: Array,
    samples: Array | None = None,
    *,
    names: Sequence[str] | None = None,
    levels: Levels | None = None,
    formats: Formats = NO_FORMATS,
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Draw columns in pairs: data (n, dim) below the diagonal, samples (m, dim) above it, marginals
    on it; return the axes (dim, dim).

    A panel shows up to 2000 rows, chosen at random. `levels` and `formats` are as in `marginals`;
    the points of one level are spread at random over a band.

    Raises: ValueError: for wrong shapes, and for more than 10 columns.

    >>> axes = pairs(torch.rand(50, 3), torch.rand(90, 3), names=["age", "income", "height"])
    >>> axes[2, 0].get_xlabel(), axes[2, 0].get_ylabel()
    ('age', 'height')
    """
    rows, drawn = same_columns(data, samples)
    dim = rows.shape[1]
    if dim > MOST_COLUMNS:
        raise ValueError(
            f"data: expected at most {MOST_COLUMNS} columns in a pair plot, got {dim}: choose some"
        )
    names, levels = column_names(names, dim), level_names(levels, dim)
    axes = square_of_panels(dim) if axes is None else np.asarray(axes)
    if axes.shape != (dim, dim):
        raise ValueError(f"axes: expected shape {(dim, dim)}, got {axes.shape}")
    for i in range(dim):
        column = None if drawn is None else drawn[:, i]
        draw_marginal(axes[i, i], rows[:, i], column, i, levels[i])
    spans = [ax.get_xlim() for ax in axes.diagonal()]
    draw_triangle(axes, jittered(rows, levels), spans, np.tril_indices(dim, -1), DATA)
    if drawn is None:
        for ax in axes[np.triu_indices(dim, 1)]:
            ax.set_axis_off()
    else:
        draw_triangle(axes, jittered(drawn, levels), spans, np.triu_indices(dim, 1), MODEL)
    label_edges(axes, names)
    for i, known in enumerate(levels):
        if known is not None:
            name_levels_of_pairs(axes, i, known)
    for i in formats.keys() & set(range(dim)):
        format_ticks(axes[-1, i].xaxis, formats[i])
        axes[-1, i].tick_params("x", rotation=90)
        if i > 0:  # the first column has its marginal there
            format_ticks(axes[i, 0].yaxis, formats[i])
    if drawn is not None:
        legend_above(axes[0, 0])
    return axes


def jittered(rows: np.ndarray, levels: Levels) -> np.ndarray:
    """Rows (n, dim) whose categorical cells are spread at random over a band around their
    level."""
    bands = np.array([0.0 if known is None else JITTER for known in levels])
    return rows + bands * np.random.default_rng(0).uniform(-1, 1, rows.shape)


def name_levels_of_pairs(axes: np.ndarray, i: int, names: Sequence[str]) -> None:
    """The levels of column i along the bottom and the left, and their ticks in its other
    panels."""
    last = len(axes) - 1
    for k in range(len(axes)):
        name_levels(axes[k, i].xaxis, names if k == last else [""] * len(names))
        if k != i:
            name_levels(axes[i, k].yaxis, names if k == 0 else [""] * len(names))


def draw_triangle(
    axes: np.ndarray,
    rows: np.ndarray,
    spans: list[tuple[float, float]],
    panels: tuple[np.ndarray, np.ndarray],
    color: str,
) -> None:
    """Scatter column j against column i in panel (i, j), inside the range of each."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).numpy()
    some = rows[order[:MOST_POINTS]]
    for i, j in zip(*panels):
        axes[i, j].scatter(
            some[:, j], some[:, i], s=1.5, color=color, alpha=0.5, linewidths=0, rasterized=True
        )
        axes[i, j].set(xlim=spans[j], ylim=spans[i])


def label_edges(axes: np.ndarray, names: list[str]) -> None:
    """Name columns along the left and the bottom, and number only there; long names in a small
    type."""
    size = min(8.0, max(4.0, ROOM / (len(names) * max(1, *map(len, names)))))
    for (i, j), ax in np.ndenumerate(axes):
        left, bottom = j == 0, i == len(names) - 1
        label(ax, names[j] if bottom else "", names[i] if left else "")
        ax.xaxis.label.set_size(size)
        ax.yaxis.label.set_size(size)
        ax.locator_params(nbins=3, axis="x")
        ax.tick_params(labelbottom=bottom, labelleft=left, labelsize=min(7.0, size))
        if i != j:
            ax.locator_params(nbins=3, axis="y")
