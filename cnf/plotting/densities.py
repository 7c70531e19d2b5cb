"""Densities and samples in the plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.contour import QuadContourSet
from matplotlib.image import AxesImage

from cnf.plotting.arrays import Array, Function, Limits, centers, on_grid, table
from cnf.plotting.style import (
    ACCENT,
    DATA,
    DENSITY,
    MODEL,
    chosen_limits,
    color_bar,
    figure,
    frame,
    label,
    panels,
    place_image,
    styled,
)

MAP_DEPTH = 10.0  # nats below the peak that a logarithmic map still shows
SHARES = (*(k / 10 for k in range(1, 10)), 0.99)  # of the mass, inside the contours


def density_grid(log_prob: Function, limits: Limits, *, resolution: int = 200) -> np.ndarray:
    """exp(log_prob) at the centers of a grid of cells, (resolution, resolution), rows from bottom
    to top.

    `log_prob` maps points (n, 2) to (n,), in nats. Raises ValueError for another shape.

    >>> density_grid(lambda x: 0 * x[:, 0], ((0, 1), (0, 1)), resolution=2).sum().item()
    4.0
    """
    x, y = centers(limits, resolution)
    with np.errstate(over="ignore"):
        return np.exp(on_grid(log_prob, x, y, "log_prob", width=()))


def peak_of(values: np.ndarray) -> float:
    """The largest density, which has to be positive and finite."""
    peak = float(np.max(values, where=~np.isnan(values), initial=0.0))
    if not 0 < peak < np.inf:
        raise ValueError(
            f"log_prob: expected a positive finite peak of the density in the limits, got {peak}"
        )
    return peak


def region_levels(masses: np.ndarray, regions: Sequence[float]) -> list[float]:
    """The mass of a cell on the edge of each highest-density region, increasing, one for each
    distinct level.

    The region of probability q is the smallest set that holds q of all mass: {x: p(x) ≥ level}
    (Hyndman 1996). Shares are of the mass on the grid.
    """
    if not all(0 < q < 1 for q in regions):
        raise ValueError(f"regions: expected probabilities between 0 and 1, got {list(regions)}")
    falling = np.sort(np.nan_to_num(masses).ravel())[::-1]
    inside = np.cumsum(falling) / falling.sum()
    levels = {float(falling[np.searchsorted(inside, q)]) for q in regions}
    return sorted(level for level in levels if falling[-1] < level < falling[0])


@styled
def density(
    log_prob: Function,
    limits: Limits,
    *,
    ax: Axes | None = None,
    kind: Literal["map", "contours"] = "map",
    resolution: int = 200,
    regions: Sequence[float] = (),
    log: bool = False,
    maximum: float | None = None,
    bar: str | None = None,
    names: Sequence[str] | None = None,
) -> Axes:
    """Draw p(x, y) = exp(log_prob) as a map, white where it is zero, or as filled contours.

    `limits` are ((left, right), (bottom, top)). Contours are vectors in an svg or pdf, and bound
    the highest-density regions with 10, 20, … 90, 99 percent of the mass in the plot; `regions`
    draws the outlines of the regions with the given shares. `log` maps log p down to 10 nats below
    its peak; `maximum` is the darkest density (default: the peak), for comparison between panels;
    `bar` labels a color bar. Raises ValueError for a wrong shape or kind and for a density that is
    zero everywhere or infinite.

    >>> ax = density(lambda x: -x.square().sum(-1), ((-2, 2), (-2, 2)), regions=(0.5, 0.9), names=["a", "b"])
    >>> ax.get_xlabel()
    'a'
    """
    values = density_grid(log_prob, limits, resolution=resolution)
    if kind not in ("map", "contours"):
        raise ValueError(f"kind: expected 'map' or 'contours', got {kind!r}")
    ax = figure()[1][0, 0] if ax is None else ax
    drawn: ScalarMappable
    if kind == "map":
        drawn = draw_map(ax, values, limits, log=log, maximum=maximum)
    else:
        drawn = fill_contours(ax, values, limits)
    if regions:
        outline(ax, values, limits, regions)
    if bar is not None:
        color_bar(ax, drawn, bar)
    frame(ax, limits, names)
    return ax


def draw_map(
    ax: Axes, values: np.ndarray, limits: Limits, *, log: bool, maximum: float | None
) -> AxesImage:
    """The density, or its logarithm, as an image that fills the limits."""
    peak = peak_of(values) if maximum is None else maximum
    bottom, top = (np.log(peak) - MAP_DEPTH, np.log(peak)) if log else (0, peak)
    with np.errstate(divide="ignore"):
        shown = np.maximum(np.log(values), bottom) if log else values
    drawn = place_image(ax, shown, limits)
    drawn.set_clim(bottom, top)
    return drawn


def fill_contours(ax: Axes, values: np.ndarray, limits: Limits) -> QuadContourSet:
    """The highest-density regions on top of each other; smaller ones are darker."""
    levels = [*region_levels(values, SHARES), peak_of(values)]
    colors = DENSITY(np.linspace(0.08, 1, len(levels) - 1))
    return ax.contourf(
        *centers(limits, len(values)), np.nan_to_num(values), levels, colors=colors, zorder=0
    )


def outline(ax: Axes, values: np.ndarray, limits: Limits, regions: Sequence[float]) -> None:
    """The outlines of the highest-density regions."""
    levels = region_levels(values, regions)
    if levels:
        grid = centers(limits, len(values))
        ax.contour(*grid, np.nan_to_num(values), levels, colors=ACCENT, linewidths=0.8)


@styled
def samples(
    x: Array,
    *,
    ax: Axes | None = None,
    over: Array | None = None,
    limits: Limits | None = None,
    size: float = 3.0,
    color: str = MODEL,
    names: Sequence[str] | None = None,
) -> Axes:
    """Draw points x (n, 2), over the gray data `over` (m, 2) if given; `size` is in square points.

    Raises ValueError for a wrong shape.

    >>> ax = samples(np.zeros((5, 2)), names=["height", "weight"])
    >>> ax.get_ylabel()
    'weight'
    """
    points = table(x, "samples", columns=2)
    data = points if over is None else table(over, "over", columns=2)
    ax = figure()[1][0, 0] if ax is None else ax
    if over is not None:
        scatter(ax, data, DATA, size, "data")
    scatter(ax, points, color, size, "samples")
    if over is not None:
        ax.legend(
            loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=2, markerscale=2
        )
    frame(ax, chosen_limits(limits, data), names)
    return ax


def scatter(ax: Axes, points: np.ndarray, color: str, size: float, name: str) -> None:
    """Small dots without an edge, an image inside vector files."""
    look: dict[str, Any] = {"s": size, "color": color, "alpha": 0.6, "linewidths": 0}
    ax.scatter(points[:, 0], points[:, 1], rasterized=True, label=name, **look)


@styled
def density_history(
    log_prob_at: Callable[[float], Function],
    times: Sequence[float],
    limits: Limits,
    axes: Sequence[Axes] | None = None,
    *,
    symbol: str = "t",
    resolution: int = 200,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """Draw the density at several times, from the base (t = 0) to the data (t = 1); return the
    axes.

    `log_prob_at(t)` is the log-density at time t, a callable as in `density`, or at the value t of
    another variable named by `symbol`, such as a context. Every panel has its own color scale.
    Raises ValueError if the numbers of axes and times differ.

    >>> axes = density_history(lambda t: lambda x: -x.square().sum(-1), [0, 0.5, 1], ((-2, 2), (-2, 2)))
    >>> [ax.get_title() for ax in axes]
    ['t = 0', 't = 0.5', 't = 1']
    """
    count = len(times)
    shown = panels(axes, count, "times", lambda: figure(1, count, panel=(1.8, 2.0))[1])
    for ax, t in zip(shown, times):
        density(log_prob_at(float(t)), limits, ax=ax, resolution=resolution, names=names)
        ax.set_title(f"{symbol} = {t:.3g}", parse_math=False)
    for ax in shown[1:]:
        label(ax, ax.get_xlabel(), "")
        ax.tick_params(labelleft=False)
    return shown
