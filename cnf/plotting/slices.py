"""Slices of densities in many columns: along one or two columns, with the others fixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from cnf.plotting.arrays import (
    Array,
    Function,
    Limits,
    as_rows,
    column_names,
    numbers,
    table,
    window,
)
from cnf.plotting.columns import row_of_panels
from cnf.plotting.densities import density, density_grid
from cnf.plotting.style import MODEL, label, panels, styled

COARSE = 60  # cells a side of the grid that looks where a density is
LEAST = 1e-3  # of the peak
SLICE_DEPTH = 12.0  # nats below its peak that a slice still shows


@styled
def slices(
    log_prob: Function,
    points: Array,
    limits: Limits,
    *,
    names: Sequence[str] | None = None,
    axes: Sequence[Axes] | None = None,
    resolution: int = 400,
) -> np.ndarray:
    """Draw log-densities along every column through points (n, dim), one line for each; return the
    axes.

    Line k of panel i is log p(x) with xᵢ running over its limits and the other columns as in
    points[k]. A dot marks the point; values more than 12 nats below the highest are not drawn.
    `log_prob` maps (rows, dim) to (rows,). Raises ValueError for wrong shapes and numbers of
    limits or axes.

    >>> axes = slices(lambda x: 4 - x.square().sum(-1), np.zeros((1, 3)), [(-2, 2)] * 3, resolution=5)
    >>> axes[2].lines[0].get_ydata().tolist()
    [0.0, 3.0, 4.0, 4.0, 3.0, 0.0]
    """
    held = table(points, "points")
    dim = held.shape[1]
    names = column_names(names, dim)
    shown = panels(axes, dim, "columns", lambda: row_of_panels(dim))
    if len(limits) != dim:
        raise ValueError(f"limits: expected one for each of {dim} columns, got {len(limits)}")
    for i, ax in enumerate(shown):
        values = np.linspace(*limits[i], resolution)
        lines = [np.sort(np.append(values, point[i])) for point in held]
        heights = np.array([along(log_prob, point, i, line) for point, line in zip(held, lines)])
        for point, line, height in zip(held, lines, heights):
            ax.plot(line, height, color=MODEL, linewidth=1.0, alpha=0.8 if len(held) < 4 else 0.5)
            ax.plot(
                point[i], height[np.searchsorted(line, point[i])], ".", color=MODEL, markersize=4
            )
        top = np.nanmax(np.where(np.isfinite(heights), heights, np.nan))
        seen = np.concatenate(lines)[heights.ravel() > top - SLICE_DEPTH]
        # Peaks at the ends of what is seen are drawn whole.
        margin = max(0.08 * np.ptp(seen), values[1] - values[0])
        ax.set_xlim(seen.min() - margin, seen.max() + margin)
        ax.set_ylim(max(np.nanmin(heights), top - SLICE_DEPTH) - 0.5, top + 0.5)
        label(ax, names[i], "log-density (nats)" if i % 4 == 0 else "")
    return shown


def along(log_prob: Function, point: np.ndarray, column: int, values: np.ndarray) -> np.ndarray:
    """log p at a point whose one column takes these values, (values,)."""
    rows = np.tile(point, (len(values), 1))
    rows[:, column] = values
    with torch.no_grad():
        return numbers(log_prob(as_rows(rows)))


def plane(log_prob: Function, point: Array, columns: tuple[int, int]) -> Callable[[Tensor], Array]:
    """log p as a function of two columns (n, 2), with the others fixed at a point (dim,).

    >>> p = plane(lambda x: x @ torch.tensor([1.0, 10.0, 100.0]), torch.tensor([7.0, 8.0, 9.0]), (0, 2))
    >>> p(torch.tensor([[1.0, 2.0]]))
    tensor([281.])
    """
    held = torch.as_tensor(numbers(point))

    def of_two(points: Tensor) -> Array:
        rows = held.to(points).repeat(len(points), 1)
        rows[:, list(columns)] = points
        return log_prob(rows)

    return of_two


@styled
def conditional(
    log_prob: Function,
    point: Array,
    limits: Limits,
    *,
    columns: tuple[int, int] = (0, 1),
    ax: Axes | None = None,
    resolution: int = 150,
    names: Sequence[str] | None = None,
) -> Axes:
    """Draw p(a, b | rest), two columns given the others at a point (dim,), which the title states.

    `limits` are those of the two columns; the plot shows the part of them with most of the
    density. `names` are those of all columns. p(a, b | rest) is p at the point as a function of a
    and b, up to a factor, and the map has its own scale. Raises ValueError for another number of
    names than columns, and as `density` does.

    >>> ax = conditional(lambda x: -(x[:, 0] - x[:, 2]).square(), [0.0, 0.0, 1.5], ((-3, 3), (-3, 3)))
    >>> ax.get_title()
    'given x₃ = 1.5'
    """
    held = numbers(point)
    known = column_names(names, len(held))
    of_two = plane(log_prob, held, columns)
    box, shown = dense_part(of_two, dense_part(of_two, limits)), [known[i] for i in columns]
    ax = density(of_two, box, ax=ax, resolution=resolution, names=shown)
    others = [i for i in range(len(held)) if i not in columns]
    rest = [f"{known[i]} = {held[i]:.3g}" for i in others]
    # The part that is shown has the shape of the density, not of the columns.
    ax.set_aspect("auto")
    ax.set_title("given " + broken(rest) if rest else "", fontsize=7, parse_math=False)
    return ax


def dense_part(log_prob: Function, limits: Limits) -> Limits:
    """The part of the limits where the density is above a thousandth of its peak, with room around
    it.

    >>> dense_part(lambda x: (x[:, 0].abs() < 1).log(), ((-6, 6), (0, 2)))
    ((-1.66..., 1.66...), (0.0, 2.0))
    """
    values = density_grid(log_prob, limits, resolution=COARSE)
    high = values > LEAST * np.nanmax(values)
    return tuple(
        around(np.flatnonzero(high.any(axis)), low, top)
        for axis, (low, top) in enumerate(window(limits))
    )


def around(cells: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The range that these of `COARSE` cells cover, a third wider, inside its limits."""
    if not len(cells):
        return low, high
    step = (high - low) / COARSE
    start, end = low + cells[0] * step, low + (cells[-1] + 1) * step
    room = (end - start) / 3
    return float(max(low, start - room)), float(min(high, end + room))


def broken(parts: Sequence[str], width: int = 34) -> str:
    """Parts with commas between them, in lines of about so many letters.

    >>> broken(["a = 1", "b = 2", "c = 3"], width=12)
    'a = 1, b = 2,\\nc = 3'
    """
    lines = [""]
    for i, part in enumerate(parts):
        text = part + ("," if i < len(parts) - 1 else "")
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append(text)
        else:
            lines[-1] += f" {text}" if lines[-1] else text
    return "\n".join(lines)
