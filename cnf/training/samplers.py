"""Samplers of likelihood training: which rows a batch holds."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from cnf.training.stratified import STRATA_CELLS, StratifiedRows, stratified_uniform

# Average number of rows in a cell, at least.
ROWS_A_CELL = 16
# Part of the draws that goes to all cells alike: no row counts for more than its inverse.
EVEN_SHARE = 0.5
# A batch counts this much one batch later: the field moves on.
OBSERVATION_DECAY = 0.99
# Prior pseudo-counts of a cell, with the pooled variance.
PRIOR_COUNT = 2.0
# Smallest standard deviation that counts, in nats.
SMALLEST_SPREAD = 1e-3
# Rows further from the median of their batch are taken to be this far, in nats.
OUTLIER_NATS = 20.0
NO_ROWS = 1e-9  # keeps a division by a number of rows finite


class Drawn(NamedTuple):
    """Rows of a batch.

    Attributes:
        places: of the rows, in random order (rows,).
        cells: that they were drawn from (rows,); None where there are no cells.
        importance: weight of each row in a mean over the batch (rows,); None for equal weights.
    """

    places: Tensor
    cells: Tensor | None = None
    importance: Tensor | None = None


class Sampler(Protocol):
    """Draws batches whose mean, weighted by importance, has the expectation over all rows.

    It is made from `StratifiedRows`.
    """

    def draw(self, size: int, generator: torch.Generator) -> Drawn:
        """A batch of `size` rows."""
        raise NotImplementedError

    def observe(self, drawn: Drawn, log_prob: Tensor) -> None:
        """Learn from the log-densities (rows,) of a batch."""
        return

    def state_dict(self) -> dict[str, Any]:
        """What was learned."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a state."""
        return


class ProportionalSampler(Sampler):
    """Every row as often as its weight says, spread evenly over the data."""

    def __init__(self, strata: StratifiedRows) -> None:
        self.strata = strata

    def draw(self, size: int, generator: torch.Generator) -> Drawn:
        """A batch of `size` rows."""
        return Drawn(self.strata.draw(size, generator))


class NeymanSampler(Sampler):
    """Cells of neighboring rows, drawn from in proportion to the spread of log p in them.

    The variance of the mean over a batch is least where a cell of weight w and standard deviation
    s gets a share ∝ w s of the draws (Neyman 1934; Cochran, "Sampling Techniques", 5.5). Here s is
    the spread of log p, since gradients were found to differ most where it does, at the edges of a
    density; the batches themselves show it. Part of the draws goes to all cells alike, and all of
    them until something was observed.

    Args:
        strata: the rows.

    Example:
        >>> sampler = NeymanSampler(StratifiedRows(torch.linspace(-1, 1, 3200)[:, None], None))
        >>> source = torch.Generator().manual_seed(0)
        >>> for _ in range(50):
        ...     drawn = sampler.draw(100, source)
        ...     sampler.observe(drawn, torch.linspace(-1, 1, 3200)[drawn.places].clamp(min=0))
        >>> places, _, importance = sampler.draw(1000, source)
        >>> (places >= 1600).sum() > 600, round(importance.mean().item(), 1)
        (tensor(True), 1.0)
    """

    def __init__(self, strata: StratifiedRows) -> None:
        self.strata = strata
        cells = max(min(len(strata.order) // ROWS_A_CELL, STRATA_CELLS), 1)
        cells = 2 ** (cells.bit_length() - 1)  # the order halves the rows again and again
        # Of the rows seen in each cell, recent ones for more: their number, Σ log p, Σ (log p)².
        self.seen = torch.zeros(3, cells, dtype=torch.float64, device=strata.order.device)

    def shares(self) -> Tensor:
        """The share of the next draws that each cell gets (cells,)."""
        count, total, squares = self.seen
        scatter = (squares - total.square() / count.clamp(min=NO_ROWS)).clamp(min=0)
        degrees = (count - 1).clamp(min=0)
        pooled = scatter.sum() / degrees.sum().clamp(min=NO_ROWS)
        variance = (scatter + PRIOR_COUNT * pooled) / (degrees + PRIOR_COUNT)
        spread = (variance + SMALLEST_SPREAD**2).sqrt()
        rates = EVEN_SHARE * spread.mean() + (1 - EVEN_SHARE) * spread
        return rates / rates.sum()

    def draw(self, size: int, generator: torch.Generator) -> Drawn:
        """A batch of `size` rows."""
        shares = self.shares()
        ends, u = shares.cumsum(0), stratified_uniform(size, generator, shares.device)
        cells = torch.searchsorted(ends, u, right=True).clamp(max=len(shares) - 1)
        within = ((u - ends[cells]) / shares[cells] + 1).clamp(0, 1)
        places = self.strata.places((cells + within) / len(shares))
        return Drawn(places, cells, 1 / (len(shares) * shares[cells]))

    def observe(self, drawn: Drawn, log_prob: Tensor) -> None:
        """Learn from log p of a batch; values that are not finite are left out."""
        assert drawn.cells is not None
        found = log_prob.detach().double()
        sound = found.isfinite()
        middle = found.where(sound, torch.nan).nanmedian()
        found = found.clamp(middle - OUTLIER_NATS, middle + OUTLIER_NATS).where(sound, 0.0)
        moments = torch.stack([sound.double(), found, found.square()])
        self.seen.mul_(OBSERVATION_DECAY).index_add_(1, drawn.cells, moments)

    def state_dict(self) -> dict[str, Any]:
        """The moments of log p in each cell."""
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a state."""
        self.seen.copy_(state["seen"])
