"""Plots of angles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes

from cnf.plotting.arrays import Array, column_names
from cnf.plotting.columns import legend_above, same_columns
from cnf.plotting.style import FAINT, MODEL, panels, styled

SECTORS = 36  # of a turn; whole angles get one each where a turn has no more than these
MOST_WHOLE = 48
DIRECTIONS = 8  # that are labeled
POINTS = 12  # of the arc that ends a sector


@styled
def rose(
    data: Array,
    samples: Array | None = None,
    *,
    turns: Sequence[tuple[float, float]],
    names: Sequence[str] | None = None,
    axes: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Draw the distribution of angles in data (n, dim) and, over it, in samples (m, dim); return
    the polar axes, one for each column.

    Angles run clockwise from the top, as on a compass and a clock. The area of a sector is its
    share of the rows. `turns` has the start and the end of a turn for each column. Each whole
    angle has its own sector, centered on it. NaN is a missing cell.

    Raises: ValueError: for wrong shapes.

    >>> axes = rose(np.arange(0.0, 360, 7)[:, None], turns=[(0.0, 360.0)], names=["wind"])
    >>> axes[0].get_title()
    'wind'
    """
    rows, drawn = same_columns(data, samples)
    names = column_names(names, rows.shape[1])
    if len(turns) != rows.shape[1]:
        raise ValueError(
            f"turns: expected one for each of {rows.shape[1]} columns, got {len(turns)}"
        )
    shown = panels(axes, len(names), "columns", lambda: _polar_panels(len(names)))
    for i, (ax, name, turn) in enumerate(zip(shown, names, turns)):
        edges = sector_edges(rows[:, i], turn)
        ax.fill(*_rim(rows[:, i], turn, edges), color=FAINT, linewidth=0, label="data")
        if drawn is not None:
            ax.plot(*_rim(drawn[:, i], turn, edges), color=MODEL, label="samples")
        ax.set_title(name, parse_math=False)
        _label_directions(ax, turn)
    if drawn is not None:
        legend_above(shown[0])
    return shown


def sector_edges(angles: np.ndarray, turn: tuple[float, float]) -> np.ndarray:
    """Edges of equal sectors of a turn; whole angles lie in the middle of theirs.

    >>> sector_edges(np.array([0.0, 1, 2, 3]), (0.0, 4.0))
    array([-0.5,  0.5,  1.5,  2.5,  3.5])
    """
    begin, end = turn
    finite = angles[np.isfinite(angles)]
    whole = end - begin <= MOST_WHOLE and not (finite % 1).any() and begin % 1 == end % 1 == 0
    if whole:
        return np.arange(begin, end + 1) - 0.5
    return np.linspace(begin, end, SECTORS + 1)


def sector_radii(angles: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Radius of each sector, whose area is its share of the angles: r = √(2 share / width)."""
    period = edges[-1] - edges[0]
    finite = angles[np.isfinite(angles)]
    inside = edges[0] + (finite - edges[0]) % period
    share = np.histogram(inside, edges)[0] / max(1, len(finite))
    return np.sqrt(2 * share * (len(edges) - 1) / (2 * np.pi))


def broken_at_seams(path: np.ndarray, turns: Mapping[int, tuple[float, float]]) -> np.ndarray:
    """Paths (time, n, dim) with a gap, NaN, where a column passes the end of its turn.

    >>> path = np.array([350.0, 359, 8, 9]).reshape(4, 1, 1)
    >>> broken_at_seams(path, {0: (0.0, 360.0)}).ravel()
    array([350., 359.,  nan,   9.])
    """
    broken = path.copy()
    for place, (begin, end) in turns.items():
        jumps = np.abs(np.diff(path[..., place], axis=0)) > (end - begin) / 2
        broken[1:][jumps] = np.nan
    return broken


def _radians(angles: np.ndarray, turn: tuple[float, float]) -> np.ndarray:
    return 2 * np.pi * (angles - turn[0]) / (turn[1] - turn[0])


def _rim(angles: np.ndarray, turn: tuple[float, float], edges: np.ndarray) -> tuple[Any, Any]:
    """Directions and radii of points along the rim of the sectors, an arc each."""
    around, radii = _radians(edges, turn), np.repeat(sector_radii(angles, edges), POINTS)
    along = np.linspace(around[:-1], around[1:], POINTS, axis=1).ravel()
    return np.append(along, along[0]), np.append(radii, radii[0])


def _label_directions(ax: PolarAxes, turn: tuple[float, float]) -> None:
    begin, end = turn
    labels = begin + (end - begin) * np.arange(DIRECTIONS) / DIRECTIONS
    ax.set_xticks(2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS, [f"{x:.4g}" for x in labels])
    ax.tick_params(pad=-3)
    ax.set_theta_zero_location("N")
    ax.set_theta_direction(-1)
    ax.set_yticks([])
    ax.spines["polar"].set_color(FAINT)
    ax.grid(visible=False)


def _polar_panels(count: int) -> np.ndarray:
    across = min(count, 4)
    down = -(-count // across)
    page = Figure(figsize=(2.0 * across, 2.2 * down), layout="compressed")
    return np.array(
        [page.add_subplot(down, across, k + 1, projection="polar") for k in range(count)]
    )
