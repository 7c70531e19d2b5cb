"""How a conditional density depends on its context."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from cnf.plotting.arrays import Array, column_names, numbers
from cnf.plotting.columns import row_of_panels
from cnf.plotting.style import MODEL, label, panels, styled

BANDS = ((0.05, 0.95), (0.25, 0.75))


@styled
def what_if(
    values: Array,
    drawn: Array,
    *,
    context: str = "context",
    names: Sequence[str] | None = None,
    axes: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Draw how the quantiles of every column depend on a varying context; return the axes.

    `values` (k,) of the context are increasing; `drawn` (k, n, dim) are samples for each. The line
    is the median, and the bands contain 50 and 90 of 100 samples. `context` labels the horizontal
    axis. Raises ValueError for wrong shapes and numbers of axes.

    >>> axes = what_if([0, 1], np.zeros((2, 9, 1)), context="income", names=["height"])
    >>> axes[0].get_xlabel(), axes[0].get_ylabel()
    ('income', 'height')
    """
    swept, samples = numbers(values), numbers(drawn)
    if swept.ndim != 1 or len(swept) < 2 or (np.diff(swept) <= 0).any():
        raise ValueError(f"values: expected at least two rising numbers, got {swept.tolist()}")
    if samples.ndim != 3 or len(samples) != len(swept):
        raise ValueError(f"drawn: expected shape ({len(swept)}, n, dim), got {samples.shape}")
    dim = samples.shape[2]
    shown = panels(axes, dim, "columns", lambda: row_of_panels(dim))
    for i, (ax, name) in enumerate(zip(shown, column_names(names, dim))):
        for band in BANDS:
            low, high = np.quantile(samples[..., i], band, axis=1)
            ax.fill_between(swept, low, high, color=MODEL, alpha=0.2, linewidth=0)
        ax.plot(swept, np.median(samples[..., i], axis=1), color=MODEL)
        ax.set_xlim(swept[0], swept[-1])
        label(ax, context, name)
    return shown
