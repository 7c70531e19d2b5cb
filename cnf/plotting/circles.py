"""Angles as roses, and points of a sphere on an equal-area map."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cnf.plotting.arrays import Array, numbers, table
from cnf.plotting.style import DATA, FAINT, MODEL, styled

SECTORS = 36  # of a rose
MOST_POINTS = 3000  # on a map
# Longitudes and latitudes of the cells of a map.
ACROSS, UP = 144, 72


@styled
def rose(
    data: Array,
    samples: Array | None = None,
    *,
    period: float = 360.0,
    start: float = 0.0,
    name: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw angles (n,) of data, and over them those of samples (m,), as a histogram around a circle;
    return the axes.

    The area of a sector is in proportion to the share of rows in it: its radius is the root of the
    share. NaN is a missing cell. Turns go clockwise from the top, as those of a compass and a clock.

    Args:
        data: angles.
        samples: angles to compare with.
        period: of a turn, in the unit of the angles.
        start: where a turn starts.
        name: a title.
        ax: polar axes; None makes a figure.

    Example:
        >>> rose(torch.rand(100) * 24, period=24.0, name="hour").get_title()
        'hour'
    """
    if ax is None:
        ax = Figure(figsize=(2.6, 2.6), layout="compressed").add_subplot(projection="polar")
    ax.set_theta_zero_location("N")  # type: ignore[attr-defined]
    ax.set_theta_direction(-1)  # type: ignore[attr-defined]
    edges = np.linspace(0, 2 * math.pi, SECTORS + 1)
    ax.bar(
        edges[:-1], _radii(data, edges, period, start), 2 * math.pi / SECTORS,
        align="edge", color=FAINT if samples is not None else MODEL, label="data",
    )  # fmt: skip
    if samples is not None:
        radii = _radii(samples, edges, period, start)
        around = np.repeat(edges, 2)[1:-1]
        ax.plot(around, np.repeat(radii, 2), color=MODEL, linewidth=1.2, label="samples")
    turns = np.arange(8) / 8
    labels = [f"{start + period * turn:.3g}" for turn in turns]
    ax.set_xticks(2 * math.pi * turns, labels)
    ax.set_yticks([])
    ax.set_title(name)
    return ax


def _radii(angles: Array, edges: np.ndarray, period: float, start: float) -> np.ndarray:
    values = numbers(angles).ravel()
    values = values[np.isfinite(values)]
    turned = np.mod((values - start) / period, 1.0) * 2 * math.pi
    share: np.ndarray = np.histogram(turned, edges)[0] / max(1, len(values))
    return np.sqrt(share)


@styled
def sphere_map(
    points: Array | None = None,
    log_prob: Callable[[Tensor], Tensor] | None = None,
    *,
    samples: Array | None = None,
    name: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw a sphere in Mollweide's equal-area projection; return the axes.

    Args:
        points: longitude and latitude of the data, in degrees (n, 2).
        log_prob: log-density (m,) per unit area at longitudes and latitudes (m, 2), as shades.
        samples: further points (m, 2), in another color.
        name: a title.
        ax: axes of the projection "mollweide"; None makes a figure.

    Example:
        >>> ax = sphere_map(torch.rand(10, 2) * 90, lambda x: -0.01 * x.square().sum(1))
        >>> len(ax.collections)
        2
    """
    if ax is None:
        ax = Figure(figsize=(5.2, 2.7), layout="compressed").add_subplot(projection="mollweide")
    if log_prob is not None:
        lon, lat = np.linspace(-180, 180, ACROSS + 1), np.linspace(-90, 90, UP + 1)
        middles = np.meshgrid((lon[1:] + lon[:-1]) / 2, (lat[1:] + lat[:-1]) / 2)
        grid = torch.tensor(np.stack(middles, -1).reshape(-1, 2))
        with torch.no_grad():
            density = log_prob(grid).exp().numpy(force=True).reshape(UP, ACROSS)
        # Roots: peaks of events are too high for the rest to be seen beside them.
        ax.pcolormesh(np.radians(lon), np.radians(lat), np.sqrt(density), rasterized=True)
    for rows, color in ((points, DATA), (samples, MODEL)):
        if rows is not None:
            shown = table(rows, "points", columns=2)[:MOST_POINTS]
            lon = np.mod(shown[:, 0] + 180, 360) - 180
            ax.scatter(np.radians(lon), np.radians(shown[:, 1]), s=1.5, color=color, linewidths=0)
    ax.grid(visible=True, linewidth=0.3)
    ax.set_xticks(np.radians([-120, -60, 0, 60, 120]), [])
    ax.set_title(name)
    return ax


def broken_at_seams(path: Tensor, periods: dict[int, float]) -> Tensor:
    """Paths (time, n, dim) with a gap where an angle passes the end of its period.

    >>> path = torch.tensor([[[350.0]], [[359.0]], [[8.0]], [[9.0]]])
    >>> broken_at_seams(path, {0: 360.0}).flatten().tolist()
    [350.0, 359.0, nan, 9.0]
    """
    broken = path.clone()
    for column, period in periods.items():
        jumps = path[:, :, column].diff(dim=0).abs() > period / 2
        broken[1:, :, column][jumps] = math.nan
    return broken
