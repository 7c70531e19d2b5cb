"""Rows drawn more often where they have more to tell."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cnf.training.stratified import CELLS, StratifiedRows, stratified_uniform

# Rows that a cell has on average at least.
FEWEST_ROWS = 16
# Part of the draws that goes to all cells alike: no row counts for more than its inverse.
EVEN_SHARE = 0.5
# What a batch says is worth this part of it one batch later: the field moves on.
DECAY = 0.99
# Rows, spread as those of all cells together, that each cell is taken to have seen beside its own.
PRIOR = 2.0
# Smallest spread that counts, in nats.
LEAST = 1e-3
# A row further from the median of its batch says no more than one that is so far, in nats.
FURTHEST = 20.0
NONE = 1e-9  # rows: keeps a division by their number finite


class Drawn(NamedTuple):
    """Rows of a batch.

    Attributes:
        places: of the rows, in random order.
        cells: that they were drawn from.
        importance: of each row in a mean over the batch: the density of all rows over that of the
            draws.
    """

    places: Tensor
    cells: Tensor
    importance: Tensor


class NeymanSampler:
    """Batches for which cells of rows near each other are drawn from in proportion to the spread
    of log p.

    A mean over the batch, weighted by importance, has the expectation that it has over all rows.
    What it errs by is what rows of one cell differ by, and is least where a cell of weight w and
    standard deviation s gets a share ∝ w s of the draws (Neyman 1934; Cochran, "Sampling
    Techniques", 5.5). Here s is the spread of log p, for gradients were found to differ most where
    it does, at the edges of a density; it is learnt from the batches themselves, for nothing. Part
    of the draws goes to all cells alike, and until something is observed, all do.

    Args:
        strata: the rows.

    Example:
        >>> allocation = NeymanSampler(StratifiedRows(torch.linspace(-1, 1, 3200)[:, None], None))
        >>> source = torch.Generator().manual_seed(0)
        >>> for _ in range(50):
        ...     drawn = allocation.draw(100, source)
        ...     allocation.observe(drawn.cells, torch.linspace(-1, 1, 3200)[drawn.places].clamp(min=0))
        >>> places, _, importance = allocation.draw(1000, source)
        >>> (places >= 1600).sum() > 600, round(importance.mean().item(), 1)
        (tensor(True), 1.0)
    """

    def __init__(self, strata: StratifiedRows) -> None:
        self.strata = strata
        cells = max(min(len(strata.order) // FEWEST_ROWS, CELLS), 1)
        cells = 2 ** (cells.bit_length() - 1)  # halves of halves, as the order has them
        # Of the rows seen in each cell, the more recent for more: their number, Σ log p and Σ (log
        # p)².
        self.seen = torch.zeros(3, cells, dtype=torch.float64, device=strata.order.device)

    def shares(self) -> Tensor:
        """Part of the next draws that each cell gets (cells,)."""
        count, total, squares = self.seen
        scatter = (squares - total.square() / count.clamp(min=NONE)).clamp(min=0)
        free = (count - 1).clamp(min=0)  # what a cell's own mean leaves of its rows
        common = scatter.sum() / free.sum().clamp(min=NONE)
        spread = ((scatter + PRIOR * common) / (free + PRIOR) + LEAST**2).sqrt()
        rates = EVEN_SHARE * spread.mean() + (1 - EVEN_SHARE) * spread
        return rates / rates.sum()

    def draw(self, size: int, generator: torch.Generator) -> Drawn:
        """`size` rows."""
        shares = self.shares()
        ends, u = shares.cumsum(0), stratified_uniform(size, generator, shares.device)
        cells = torch.searchsorted(ends, u, right=True).clamp(max=len(shares) - 1)
        within = ((u - ends[cells]) / shares[cells] + 1).clamp(0, 1)
        places = self.strata.places((cells + within) / len(shares))
        return Drawn(places, cells, 1 / (len(shares) * shares[cells]))

    def observe(self, cells: Tensor, log_prob: Tensor) -> None:
        """Learn from log p of rows drawn from these cells; one that is not finite says nothing."""
        found = log_prob.detach().double()
        sound = found.isfinite()
        middle = found.where(sound, torch.nan).nanmedian()
        found = found.clamp(middle - FURTHEST, middle + FURTHEST).where(sound, 0.0)
        self.seen.mul_(DECAY).index_add_(
            1, cells, torch.stack([sound.double(), found, found.square()])
        )
