"""Trajectories of particles, and the velocity field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.quiver import Quiver

from cnf.plotting.arrays import Array, Function, Limits, centers, column_names, numbers, on_grid
from cnf.plotting.style import INK, TIME, color_bar, figure, frame, limits, styled

# Arrows along the axes' own units, of one width.
ARROW_UNITS: dict[str, Any] = {
    "angles": "xy",
    "scale_units": "xy",
    "scale": 1,
    "units": "inches",
    "width": 0.01,
}
LONG = 16  # letters of a term that has a line of its own
MOST_VECTORS = 5000  # line segments in a vector file; more are drawn as an image


@styled
def trajectories(
    path: Array,
    *,
    ax: Axes | None = None,
    times: Array | None = None,
    color: Literal["time"] | Array = "time",
    columns: tuple[int, int] | Literal["principal"] = (0, 1),
    names: Sequence[str] | None = None,
    bar: str | None = None,
) -> Axes:
    """Draw the paths of particles (time, n, dim), from rings to dots, in the plane of two columns.

    `times` (time,) are those of the states, by default evenly spaced from 0 to 1. `color` is
    "time", one value per particle (n,), or one per state (time, n), such as log-densities.
    `columns` are two indices, or "principal" for the plane of largest spread of the ends, see
    `principal_axes`; `names` are those of all dim columns; `bar` labels a color bar. Raises
    ValueError for wrong shapes, another color and unknown columns.

    >>> ax = trajectories(np.cumsum(np.ones((5, 3, 2)), axis=0), names=["height", "weight"])
    >>> ax.get_xlabel()
    'height'
    """
    if isinstance(color, str) and color != "time":
        raise ValueError(f"color: expected 'time' or one value per particle, got {color!r}")
    states = numbers(path)
    if states.ndim != 3 or states.shape[0] < 2 or states.shape[1] < 1:
        raise ValueError(
            f"path: expected shape (time, n, dim) with at least 2 times, got {states.shape}"
        )
    labels = column_names(names, states.shape[2])
    if columns == "principal":
        plane, shown = principal_axes(states, names=labels)
    else:
        plane, shown = chosen(states, columns), [labels[i] for i in columns]
    lines = colored(plane, times) if isinstance(color, str) else valued(plane, numbers(color))
    ax = figure()[1][0, 0] if ax is None else ax
    ax.add_collection(lines, autolim=False)
    (x0, y0), (x1, y1) = plane[0].T, plane[-1].T
    ring: dict[str, Any] = {
        "s": 5,
        "facecolors": "white",
        "edgecolors": INK,
        "linewidths": 0.4,
        "zorder": 3,
    }
    ax.scatter(x0, y0, label="start", **ring)
    ax.scatter(x1, y1, s=4, color=INK, linewidths=0, zorder=4, label="end")
    if bar is not None:
        color_bar(ax, lines, bar)
    frame(ax, limits(plane.reshape(-1, 2), (0, 1), 0.06), shown)
    if columns == "principal":
        ax.set_aspect("auto")  # the first axis is the longer one by construction
    return ax


def chosen(states: np.ndarray, columns: tuple[int, int]) -> np.ndarray:
    """The two chosen columns of all states, shape (time, n, 2)."""
    dim = states.shape[2]
    if len(columns) != 2 or not all(0 <= i < dim for i in columns):
        raise ValueError(
            f"columns: expected two from 0 to {dim - 1} for a path of {dim} columns, got {columns}"
        )
    return states[:, :, list(columns)]


def principal_axes(
    path: Array, *, names: Sequence[str] | None = None
) -> tuple[np.ndarray, list[str]]:
    """The path (time, n, dim) in the plane of largest spread of its ends, (time, n, 2), and the
    names of the axes.

    Columns are divided by the standard deviation of their ends first. The name of an axis gives
    its share of the variance and its columns, those with the largest weights first. Raises
    ValueError for a path of one column.

    >>> ends = np.outer(np.linspace(-1, 1, 9), [1.0, 2.0, 0.0]) + 1
    >>> plane, shown = principal_axes(np.stack([ends, ends]), names=["a", "b", "c"])
    >>> print(shown[0])
    principal axis 1 (100 %)
    +0.71 a +0.71 b
    """
    states = numbers(path)
    if states.ndim != 3 or states.shape[2] < 2:
        raise ValueError(f"path: expected shape (time, n, dim) with dim ≥ 2, got {states.shape}")
    labels = column_names(names, states.shape[2])
    spread = states[-1].std(0)
    scaled = (states - states[-1].mean(0)) / np.where(spread > 0, spread, 1.0)
    _, lengths, directions = np.linalg.svd(scaled[-1], full_matrices=False)
    # Towards the larger values of the column that weighs most: the sign that comes out is chance.
    heaviest = np.abs(directions).argmax(1)[:, None]
    directions *= np.sign(np.take_along_axis(directions, heaviest, 1))
    shares = lengths**2 / (lengths**2).sum()
    shown = [
        f"principal axis {i + 1} ({100 * share:.0f} %)\n{weights(direction, labels)}"
        for i, (share, direction) in enumerate(zip(shares[:2], directions))
    ]
    return scaled @ directions[:2].T, shown


def weights(direction: np.ndarray, names: Sequence[str], most: int = 3) -> str:
    """The columns that an axis is made of, those of the largest weights first."""
    order = np.argsort(-np.abs(direction).round(9), kind="stable")[:most]
    terms = [f"{direction[i]:+.2f} {names[i]}" for i in order if abs(direction[i]) > 0.05]
    return (" " if max(map(len, terms)) <= LONG else "\n").join(terms)


def colored(plane: np.ndarray, times: Array | None) -> LineCollection:
    """One segment per particle and step, colored by the time in its middle."""
    times = np.linspace(0, 1, len(plane)) if times is None else numbers(times)
    if times.shape != plane.shape[:1]:
        raise ValueError(
            f"times: expected shape {plane.shape[:1]}, one for each state, got {times.shape}"
        )
    return stepwise(plane, np.repeat(times[:, None], plane.shape[1], axis=1))


def valued(plane: np.ndarray, values: np.ndarray) -> LineCollection:
    """One line per particle in the color of its value, or a segment for each step in that of its
    middle."""
    if values.shape == plane.shape[:2]:
        return stepwise(plane, values)
    if values.shape != plane.shape[1:2]:
        raise ValueError(
            f"color: expected shape {plane.shape[1:2]}, one per particle, or {plane.shape[:2]}, one per "
            f"state, got {values.shape}"
        )
    return collection(plane.swapaxes(0, 1), values, (values.min(), values.max()), plane.size // 2)


def stepwise(plane: np.ndarray, values: np.ndarray) -> LineCollection:
    """One segment per particle and step, in the color of the mean of its ends' values (time,
    n)."""
    segments = np.stack([plane[:-1], plane[1:]], axis=2).reshape(-1, 2, 2)
    middles = ((values[:-1] + values[1:]) / 2).ravel()
    return collection(segments, middles, (values.min(), values.max()), len(segments))


def collection(
    lines: np.ndarray, values: np.ndarray, span: tuple[float, float], segments: int
) -> LineCollection:
    """Thin lines in the colors of time."""
    drawn = LineCollection(list(lines), cmap=TIME, linewidths=0.7, capstyle="round", zorder=2)
    drawn.set(array=values, clim=span, rasterized=segments > MOST_VECTORS)
    return drawn


@styled
def field(
    velocity: Function,
    limits: Limits,
    *,
    ax: Axes | None = None,
    kind: Literal["arrows", "streamlines"] = "arrows",
    resolution: int = 18,
    bar: str | None = None,
    names: Sequence[str] | None = None,
) -> Axes:
    """Draw a velocity, a callable (n, 2) -> (n, 2), as arrows or streamlines colored by speed.

    Arrows point along the velocity on a grid of `resolution` cells per side; the fastest tenth are
    as long as a cell, and the others are in proportion. `bar` labels a color bar. Raises
    ValueError for a wrong shape or kind.

    >>> ax = field(lambda x: -x, ((-1, 1), (-1, 1)), resolution=10)
    >>> len(ax.collections[0].U)
    100
    """
    if kind not in ("arrows", "streamlines"):
        raise ValueError(f"kind: expected 'arrows' or 'streamlines', got {kind!r}")
    x, y = centers(limits, resolution)
    flow = on_grid(velocity, x, y, "velocity", width=(2,))
    ax = figure()[1][0, 0] if ax is None else ax
    draw = arrows if kind == "arrows" else streamlines
    drawn = draw(ax, x, y, flow)
    if bar is not None:
        color_bar(ax, drawn, bar)
    frame(ax, limits, names)
    return ax


def arrows(ax: Axes, x: np.ndarray, y: np.ndarray, flow: np.ndarray) -> Quiver:
    """Arrows on the grid x × y, as long as a cell from the ninth decile of speed on."""
    speed = np.linalg.norm(flow, axis=-1)
    cell = min(x[1] - x[0], y[1] - y[0])
    reach = np.nanquantile(speed, 0.9) or 1.0
    u, v = np.moveaxis(cell * flow / np.maximum(speed, reach)[..., None], -1, 0)
    head: dict[str, Any] = {"headwidth": 3.5, "headlength": 4, "headaxislength": 3.5}
    return ax.quiver(x, y, u, v, speed, cmap=TIME, pivot="mid", **head, **ARROW_UNITS)


def streamlines(ax: Axes, x: np.ndarray, y: np.ndarray, flow: np.ndarray) -> LineCollection:
    """Curves along the velocity."""
    speed = np.linalg.norm(flow, axis=-1)
    return ax.streamplot(
        x, y, flow[..., 0], flow[..., 1], color=speed, cmap=TIME, linewidth=0.8, arrowsize=0.6
    ).lines
