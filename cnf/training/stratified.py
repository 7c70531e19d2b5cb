"""Random rows that are spread evenly over the data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Number of cells of the order; no batch is much larger.
STRATA_CELLS = 2048
# Rows of a cell from which its widest column is determined.
WIDTH_ROWS = 500


class StratifiedRows:
    """Stratified draws of rows: one from each of several cells of equal weight.

    Every row is drawn in proportion to its weight, as in independent draws. The variance of a batch
    mean is the within-cell variance only (stratified sampling with proportional allocation;
    Cochran, "Sampling Techniques", 5.6).

    Args:
        x: columns that define which rows are close (rows, columns).
        weights: weights (rows,), or None for equal ones.
        cells: number of cells of the order.

    Example:
        >>> strata = StratifiedRows(torch.randn(1000, 2), None)
        >>> len(strata.draw(1000, torch.Generator()).unique())
        1000
    """

    def __init__(self, x: Tensor, weights: Tensor | None, cells: int = STRATA_CELLS) -> None:
        self.order = kd_tree_order(x, cells)
        self.cumulative = None if weights is None else weights[self.order].double().cumsum(0)

    def draw(self, size: int, generator: torch.Generator) -> Tensor:
        """Indices of `size` rows, in random order."""
        return self.places(stratified_uniform(size, generator, self.order.device))

    def places(self, levels: Tensor) -> Tensor:
        """Indices of the rows at levels (n,) in [0, 1) of the cumulative weight; close levels give close
        rows."""
        if self.cumulative is None:
            at = (levels * len(self.order)).long()
        else:
            at = torch.searchsorted(self.cumulative, levels * self.cumulative[-1])
        return self.order[at.clamp(max=len(self.order) - 1)]


def stratified_uniform(size: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Numbers in [0, 1), one in each of `size` equal parts, in random order."""
    parts = torch.randperm(size, generator=generator, device=device)
    return (
        parts + torch.rand(size, generator=generator, device=device, dtype=torch.float64)
    ) / size


def kd_tree_order(x: Tensor, cells: int = STRATA_CELLS) -> Tensor:
    """The order of the rows of x, all finite, in the leaves of a k-d tree (Bentley 1975).

    The tree splits the rows at the median of the column with the largest variance, and the halves in the
    same way, so that close rows follow each other.

    Example:
        >>> x = torch.tensor([[5.0], [1.0], [4.0], [2.0]])
        >>> x[kd_tree_order(x)].flatten().tolist()
        [1.0, 2.0, 4.0, 5.0]
    """
    rows = x.numpy(force=True)
    order, smallest = np.arange(len(rows)), max(len(rows) // cells, 1)
    pending = [(0, len(rows))]
    while pending:
        start, end = pending.pop()
        if end - start <= smallest:
            continue
        inside, half = order[start:end], (end - start) // 2
        sampled = inside[:: max(len(inside) // WIDTH_ROWS, 1)]
        widest = rows[sampled].var(0, dtype=np.float64).argmax()
        order[start:end] = inside[np.argpartition(rows[inside, widest], half)]
        pending += [(start, start + half), (start + half, end)]
    return torch.from_numpy(order).to(x.device)
