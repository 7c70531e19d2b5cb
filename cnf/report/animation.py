"""The interactive flow: particles, their log-densities and maps of the density at each time."""

from __future__ import annotations

import base64
from itertools import combinations
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from cnf.plotting.arrays import centers
from cnf.plotting.style import column_range
from cnf.report.data import ReportData
from cnf.rows import evenly_spaced

TIMES = 33
PARTICLES = 400  # drawn
CROWD = 10_000  # particles from which a map of two columns of many is counted
ROWS = 1000  # rows of the data
MOST_COLUMNS = 7  # to choose the axes from
EXACT_CELLS, COUNTED_CELLS = 64, 48  # a side of a map
BLUR = 1.0  # cells
DEPTH = 10.0  # nats below its peak down to which a map has levels
LOG_DENSITY = "log-density"
INSIDE = (0.005, 0.995), 0.08  # quantiles between the limits, and the margin around them


@torch.no_grad()
def motion(data: ReportData) -> dict[str, Any]:
    """Arrays for the page, as JSON; see `packed`.

    The axes are the first columns and, last, the log-density. A flow of two columns without
    context but time has one map, its exact density; all other maps are counted from particles.
    """
    times = torch.linspace(0, 1, TIMES, dtype=torch.float64)
    shown = min(data.dim, MOST_COLUMNS)
    drawn = with_log_density(data, times)
    some = evenly_spaced(data.rows.x, ROWS)
    rows = numbers(data.rows.x[some][:, :shown])
    points = np.concatenate([drawn[..., :shown].reshape(-1, shown), rows])
    limits = limits_of(points, drawn[..., -1])
    exact = has_exact_map(data)
    maps = exact_maps(data, times, limits) if exact else counted_maps(data, times, limits, shown)
    return {
        "names": [*data.names[:shown], LOG_DENSITY],
        "times": times.tolist(),
        "clock": data.clock(times.tolist()),
        "limits": limits,
        "particles": packed(drawn[..., [*range(shown), -1]].transpose(2, 0, 1)),
        "rows": packed(rows.T),
        "seen": data.seen(some),
        "maps": {pair: packed_map(levels) for pair, levels in maps.items()},
        "depth": DEPTH,
        "exact": exact,
    }


def has_exact_map(data: ReportData) -> bool:
    """Whether the map shows the density itself: two columns, and no context but time."""
    return data.dim == 2 and (data.flow.context_dim == 0 or data.show_time is not None)


def paths(data: ReportData, times: Tensor, count: int) -> np.ndarray:
    """Particles (time, count, dim) from the base to the data."""
    return numbers(data.flow.trajectory(data.base_points(count), times, data.carried_under(count)))


def with_log_density(data: ReportData, times: Tensor) -> np.ndarray:
    """The particles that are drawn, with log p as one more column, (time, n, dim + 1)."""
    start, context = data.base_points(PARTICLES), data.carried_under(PARTICLES)
    path, height = data.flow.trajectory_and_log_prob(start, times, context)
    return numbers(torch.cat([path, height[..., None]], -1))


def limits_of(points: np.ndarray, heights: np.ndarray) -> list[tuple[float, float]]:
    """The range of every column over all times and rows, and of the log-density."""
    columns = [*points.T, heights.ravel()]
    return [column_range(column, i, *INSIDE) for i, column in enumerate(columns)]


def exact_maps(
    data: ReportData, times: Tensor, limits: list[tuple[float, float]]
) -> dict[str, np.ndarray]:
    """log p on a grid (time, cells, cells), from one solve for each time."""
    x, y = (torch.from_numpy(side) for side in centers(limits[:2], EXACT_CELLS))
    points = torch.cartesian_prod(y, x).flip(1)
    flow = data.flow
    inner, context, ladj = flow.to_model_coordinates(points, data.carried_under(len(points)))
    maps = [flow.solve_log_prob(inner, context, t=t).log_prob + ladj for t in times.tolist()]
    return {"0,1": numbers(torch.stack(maps)).reshape(-1, EXACT_CELLS, EXACT_CELLS)}


def counted_maps(
    data: ReportData, times: Tensor, limits: list[tuple[float, float]], shown: int
) -> dict[str, np.ndarray]:
    """log p of every two columns (time, cells, cells), counted from particles and blurred by one
    cell."""
    if shown < 2:
        return {}
    crowd = paths(data, times, CROWD)
    return {
        f"{a},{b}": counted(crowd[..., [a, b]], [limits[a], limits[b]])
        for a, b in combinations(range(shown), 2)
    }


def counted(crowd: np.ndarray, box: list[tuple[float, float]]) -> np.ndarray:
    """log p of one pair of columns."""
    (left, right), (bottom, top) = box
    area = (right - left) * (top - bottom) / COUNTED_CELLS**2
    counts = [np.histogram2d(x, y, COUNTED_CELLS, range=box)[0].T for x, y in crowd.swapaxes(1, 2)]
    with np.errstate(divide="ignore"):
        return np.log([gaussian_filter(count, BLUR) / (crowd.shape[1] * area) for count in counts])


def packed_map(maps: np.ndarray) -> dict[str, Any]:
    """Levels of each time from 1, `DEPTH` nats below the peak, to 255, the peak; 0 is lower or
    unknown."""
    peaks = np.where(np.isfinite(maps), maps, -np.inf).max((1, 2))
    with np.errstate(invalid="ignore"):
        depth = np.nan_to_num((maps - peaks[:, None, None]) / DEPTH, nan=-2.0, neginf=-2.0)
    levels = np.where(depth < -1, 0, np.round(1 + 254 * (1 + depth)))
    cells = base64.b64encode(levels.astype(np.uint8).tobytes()).decode()
    return {"cells": maps.shape[1], "peaks": peaks.tolist(), "levels": cells}


def packed(values: np.ndarray) -> dict[str, Any]:
    """An array as its shape and its float32 numbers, little-endian, in base64."""
    with np.errstate(over="ignore"):  # overflow becomes infinity
        numbers = values.astype("<f4")
    return {"shape": values.shape, "numbers": base64.b64encode(numbers.tobytes()).decode()}


def numbers(x: Tensor) -> np.ndarray:
    """The values of a tensor."""
    return x.double().cpu().numpy()
