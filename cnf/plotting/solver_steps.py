"""The steps of a solve: their lengths and their errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from cnf.plotting.arrays import Array, numbers
from cnf.plotting.log_labels import label_plainly
from cnf.plotting.style import MODEL, figure, label, panels, styled

SMALLEST = 1e-12  # nats: errors below are rounding


@styled
def steps(nodes: Array, errors: Array, *, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """Draw the length of every step of a solve, and below it the errors of rows in this step;
    return the axes.

    `nodes` (steps + 1,) are increasing times; `errors` (steps, rows) are in nats: the line is
    their median, and the band contains 90 of 100 rows. If the band is level, all steps have about
    the same error. Raises ValueError for wrong shapes and numbers of axes.

    >>> axes = steps([0, 0.5, 1], np.full((2, 5), 1e-4))
    >>> [ax.get_ylabel() for ax in axes]
    ['length of step', 'error of step (nats)']
    """
    times, made = numbers(nodes), np.maximum(np.abs(numbers(errors)), SMALLEST)
    if times.ndim != 1 or len(times) < 2 or (np.diff(times) <= 0).any():
        raise ValueError(f"nodes: expected at least two rising times, got {times.tolist()}")
    if made.ndim != 2 or len(made) != len(times) - 1 or not made.shape[1]:
        raise ValueError(f"errors: expected shape ({len(times) - 1}, rows), got {made.shape}")
    shown = panels(axes, 2, "panels", lambda: figure(2, 1, panel=(3.4, 1.5))[1])
    low, middle, high = np.nanquantile(made, (0.05, 0.5, 0.95), axis=1)
    shown[0].stairs(np.diff(times), times, baseline=None, color=MODEL, linewidth=1.2)
    shown[0].set_ylim(bottom=0)
    shown[1].stairs(high, times, baseline=low, fill=True, color=MODEL, alpha=0.2)
    shown[1].stairs(middle, times, baseline=None, color=MODEL, linewidth=1.2)
    shown[1].set_yscale("log")
    label_plainly(shown[1].yaxis)
    shown[1].yaxis.set_minor_formatter(NullFormatter())
    decade = np.floor(np.log10(low.min()))
    shown[1].set_ylim(10.0**decade, 10.0 ** max(np.ceil(np.log10(high.max())), decade + 1))
    for ax, name in zip(shown, ("length of step", "error of step (nats)")):
        ax.set_xlim(times[0], times[-1])
        label(ax, "time" if ax is shown[1] else "", name)
    return shown
