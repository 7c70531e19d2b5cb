"""Rows that Gaussian mixtures are fitted to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cnf.recipe.defaults import MIXTURE_ROWS


def rows_for_mixture(
    y: Tensor, weights: Tensor | None, seed: int, most: int = MIXTURE_ROWS
) -> NDArray[np.float32]:
    """At most a given number of rows for a mixture fit, in single precision. A mixture fit takes no
    weights, so that each row is repeated in proportion to its weight."""
    rows, count = y.float().numpy(force=True), min(len(y), most)
    if weights is not None:
        return rows[systematic(weights.double().numpy(force=True), count)]
    if len(rows) == count:
        return rows
    return rows[np.random.default_rng(seed).choice(len(rows), count, replace=False)]


def systematic(weights: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Indices (count,) of a systematic resample: each row occurs in proportion to its weight (rows,),
    up to rounding.

    Example:
        >>> systematic(np.array([1.0, 2.0, 1.0]), 4), systematic(np.ones(4), 2)
        (array([0, 1, 1, 2]), array([0, 2]))
    """
    ends = np.cumsum(weights) / np.sum(weights)
    return np.searchsorted(ends, (np.arange(count) + 0.5) / count).clip(max=len(weights) - 1)
