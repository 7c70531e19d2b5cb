"""Densities and particles on a sphere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.projections.geo import GeoAxes
from scipy.special import logsumexp

from cnf.plotting.animations import Update, animate, between, eased
from cnf.plotting.arrays import Array, Function, on_grid, table
from cnf.plotting.densities import peak_of
from cnf.plotting.style import DATA, DENSITY, FAINT, INK, MODEL, color_bar, styled

LONGITUDES, LATITUDES = 180, 90  # cells of a map
LABELS = (60.0, 30.0)  # degrees of longitude and latitude between those of a map
GRATICULE = 30.0  # degrees between the lines of a globe
TILT = 20.0  # degrees north of the equator from which a globe is seen
NEAR, FAR = 0.85, 0.08  # opacity of particles on either side of it


@styled
def sphere_map(
    log_prob: Function,
    *,
    points: Array | None = None,
    ax: Axes | None = None,
    normalize: bool = False,
    title: str = "",
) -> Axes:
    """Draw a density on the sphere in the equal-area Mollweide projection; return its axes.

    `log_prob` takes longitudes and latitudes in degrees (n, 2) and gives log p (n,) per unit area
    of the unit sphere. `points` (n, 2) are drawn over it. `normalize` divides by the integral over
    the sphere, ∫ p cos φ dφ dλ, for a density of more columns with the others fixed.

    Raises: ValueError: for wrong shapes, and for a density without a positive finite peak.

    >>> ax = sphere_map(lambda x: 0 * x[:, 0], normalize=True)
    >>> float(ax.collections[0].get_array().mean().round(4))  # 1 / 4π
    0.0796
    """
    longitudes, latitudes = _edges(180.0, LONGITUDES), _edges(90.0, LATITUDES)
    middle = [(edges[1:] + edges[:-1]) / 2 for edges in (longitudes, latitudes)]
    logs = on_grid(log_prob, middle[0], middle[1], "log_prob", width=())
    values = np.exp(logs - (_log_integral(logs, latitudes) if normalize else 0.0))
    peak_of(values)
    ax = sphere_figure()[1] if ax is None else ax
    edges = np.radians(longitudes), np.radians(latitudes)
    drawn = ax.pcolormesh(*edges, values, cmap=DENSITY, rasterized=True, zorder=0)
    if points is not None:
        sphere_points(points, ax=ax)
    ax.set_title(title, parse_math=False)
    color_bar(ax, drawn, "density per unit area")
    return ax


@styled
def sphere_points(points: Array, *, ax: Axes | None = None, color: str = INK) -> Axes:
    """Draw longitudes and latitudes (n, 2) in degrees in the same projection; return its axes.

    >>> sphere_points(np.array([[190.0, 45.0]])).collections[0].get_offsets()[0, 0].round(3).item()
    -2.967
    """
    ax = sphere_figure()[1] if ax is None else ax
    longitude, latitude = table(points, "points", columns=2).T
    longitude = (longitude + 180) % 360 - 180
    look: dict[str, Any] = {
        "s": 1.5,
        "color": color,
        "alpha": 0.5,
        "linewidths": 0,
        "rasterized": True,
    }
    ax.scatter(np.radians(longitude), np.radians(latitude), **look)
    return ax


@styled
def sphere_figure() -> tuple[Figure, Axes]:
    """A figure with axes of the projection."""
    page = Figure(figsize=(5.2, 2.7), layout="compressed")
    ax = page.add_subplot(projection="mollweide")
    assert isinstance(ax, GeoAxes), "the projection of Mollweide is geographic"
    ax.grid(visible=True, color=FAINT, linewidth=0.3)
    ax.set_longitude_grid(LABELS[0])
    ax.set_latitude_grid(LABELS[1])
    ax.tick_params(labelsize=5, colors=DATA)
    return page, ax


def _edges(end: float, cells: int) -> np.ndarray:
    return np.linspace(-end, end, cells + 1)


def _log_integral(logs: np.ndarray, latitudes: np.ndarray) -> float:
    """log ∫ exp(logs) dΩ over cells (latitudes, longitudes) between edges of equal distance."""
    areas = np.diff(np.sin(np.radians(latitudes))) * 2 * np.pi / logs.shape[1]
    return float(logsumexp(np.nan_to_num(logs, nan=-np.inf), b=areas[:, None]))


def globe_animation(
    path: Array,
    times: Array,
    file: str | Path,
    *,
    frames: int = 48,
    frame_rate: int = 20,
    size: tuple[float, float] = (4.0, 4.0),
    title: str = "",
    callback: Callable[[int, int], None] | None = None,
) -> None:
    """Animate particles that flow from base to data and back on a globe that rotates once.

    `path` (time, n, 2) has longitudes and latitudes in degrees at increasing `times` (time,).
    Frames between two times are interpolated along chords, and projected to the sphere. Particles
    on the far side are faint. Raises ValueError as `flow_animation` does.

    >>> from tempfile import TemporaryDirectory
    >>> start = np.stack([np.linspace(-170, 170, 40), np.zeros(40)], axis=1)
    >>> with TemporaryDirectory() as folder:
    ...     globe_animation(np.stack([start, start / 2]), [0, 1], Path(folder, "a.gif"), frames=20)
    ...     print([file.name for file in Path(folder).iterdir()])
    ['a.gif']
    """
    states, clock, moments = eased(path, times, frames)
    vectors = unit_vectors(states)
    heading = f"{title}\n" if title else ""

    def draw(page: Figure) -> Update:
        ax = page.add_subplot(aspect="equal", xlim=(-1.03, 1.03), ylim=(-1.03, 1.03))
        ax.set_axis_off()
        around = np.linspace(0, 2 * np.pi, 181)
        ax.plot(np.cos(around), np.sin(around), color=DATA, linewidth=0.8)
        lines = [(ax.plot([], [], color=FAINT, linewidth=0.4)[0], line) for line in graticule()]
        dots = ax.scatter([], [], s=7, linewidths=0, color=MODEL)

        def update(k: int) -> None:
            turned = 360.0 * k / frames
            now = between(vectors, clock, moments[k])
            seen = seen_from(now / np.linalg.norm(now, axis=-1, keepdims=True), turned)
            dots.set_offsets(seen[:, :2])
            dots.set_alpha(np.where(seen[:, 2] > 0, NEAR, FAR).tolist())
            for drawn, line in lines:
                there = seen_from(line, turned)
                drawn.set_data(*np.where(there[:, 2:] > 0, there[:, :2], np.nan).T)
            ax.set_title(f"{heading}t = {moments[k]:.2f}")

        return update

    animate(draw, frames, file, size=size, frame_rate=frame_rate, callback=callback)


def unit_vectors(places: np.ndarray) -> np.ndarray:
    """Points (*batch, 3) of the unit sphere at longitudes and latitudes (*batch, 2) in degrees.

    >>> unit_vectors(np.array([[0.0, 90.0]])).round(6)
    array([[0., 0., 1.]])
    """
    longitude, latitude = np.moveaxis(np.radians(places), -1, 0)
    across = np.cos(latitude)
    return np.stack(
        [across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)], axis=-1
    )


def seen_from(points: np.ndarray, longitude: float) -> np.ndarray:
    """Points (n, 3) as seen from above a longitude and a little north: to the right, upward, and
    toward the eye.

    >>> np.abs(seen_from(unit_vectors(np.array([[90.0, TILT]])), 90.0)).round(6)
    array([[0., 0., 1.]])
    """
    turn, tilt = np.radians(longitude), np.radians(TILT)
    right = np.array([-np.sin(turn), np.cos(turn), 0.0])
    eye = unit_vectors(np.array([longitude, TILT]))
    up = np.array([-np.sin(tilt) * np.cos(turn), -np.sin(tilt) * np.sin(turn), np.cos(tilt)])
    return points @ np.stack([right, up, eye], axis=1)


def graticule() -> list[np.ndarray]:
    """Meridians and parallels as points (n, 3) of the unit sphere."""
    along = np.linspace(-90, 90, 61)
    meridians = [np.stack([0 * along + x, along], 1) for x in np.arange(0, 360, GRATICULE)]
    around = np.linspace(0, 360, 121)
    parallels = [
        np.stack([around, 0 * around + y], 1) for y in np.arange(GRATICULE - 90, 90, GRATICULE)
    ]
    return [unit_vectors(line) for line in (*meridians, *parallels)]
