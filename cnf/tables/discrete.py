"""An exact distribution over the discrete states of a row: categories, atoms and the pattern of missing
cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class DiscreteModel(nn.Module):
    """p(states | known states, extra) = ∏ⱼ p(stateⱼ | states before j, known states, extra).

    One network with two hidden layers computes every factor. It reads the known states, one-hot encoded
    with a flag for each, and returns a softmax for the next state, as orderless autoregressive networks
    do (Uria, Murray & Larochelle 2014). Each factor is normalized, and therefore also the product, for
    every set of known states. The initial distribution consists of the frequencies of single columns
    from `start_from`.

    Args:
        sizes: number of states of each column; a column with one state is certain.
        extra: number of further columns that the network reads.
        hidden: width of the hidden layers.

    Example:
        >>> model = DiscreteModel([2, 3])
        >>> every = torch.cartesian_prod(torch.arange(2), torch.arange(3))
        >>> model.log_prob(every, torch.zeros(6, 0)).logsumexp(0).abs() < 1e-5
        tensor(True)
    """

    def __init__(self, sizes: Sequence[int], extra: int = 0, hidden: int = 64) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.extra = extra
        self.non_constant = [j for j, size in enumerate(sizes) if size > 1]
        width = sum(self.sizes[j] for j in self.non_constant)
        first = nn.Linear(max(width + len(self.non_constant) + extra, 1), hidden)
        second, last = nn.Linear(hidden, hidden), nn.Linear(hidden, max(width, 1))
        self.network = nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the computation."""
        return next(self.parameters()).dtype

    @torch.no_grad()
    def start_from(self, states: Tensor, weights: Tensor) -> None:
        """Initialize every column with the frequencies of its states (rows, columns), plus one row for
        each state."""
        parts = []
        for j in self.non_constant:
            seen = states[:, j] >= 0
            counts = torch.bincount(states[seen, j], weights[seen], minlength=self.sizes[j]) + 1
            parts.append((counts / counts.sum()).log())
        if parts:
            *_, bias = self.network.parameters()
            bias.copy_(torch.cat(parts))

    def log_prob(self, states: Tensor, extra: Tensor, known: Tensor | None = None) -> Tensor:
        """Log-probability (rows,) of the unknown states (rows, columns) given the known ones.

        Args:
            states: −1 for states that are neither known nor requested.
            extra: further inputs (rows, extra).
            known: mask of the given states (rows, columns).
        """
        total = extra.new_zeros(len(states))
        known = torch.zeros_like(states, dtype=torch.bool) if known is None else known
        for j in self.non_constant:
            asked = ~known[:, j] & (states[:, j] >= 0)
            log_probs = self.log_probs(j, states, known, extra)
            picked = log_probs.gather(1, states[:, j : j + 1].clamp(min=0)).squeeze(1)
            total = total + picked.where(asked, 0.0)
            known = known.clone()
            known[:, j] = states[:, j] >= 0
        return total

    def log_probs(self, column: int, states: Tensor, known: Tensor, extra: Tensor) -> Tensor:
        """Log-probabilities (rows, states) of one column's state, given the known ones."""
        inputs = self._inputs(states, known).to(extra.dtype)
        at = self.non_constant.index(column)
        start = sum(self.sizes[j] for j in self.non_constant[:at])
        logits: Tensor = self.network(torch.cat((inputs, extra), 1))
        return logits[:, start : start + self.sizes[column]].log_softmax(1)

    def _inputs(self, states: Tensor, known: Tensor) -> Tensor:
        """The one-hot encoded known states, and their mask (rows, width + columns)."""
        sizes = torch.tensor([self.sizes[j] for j in self.non_constant], device=states.device)
        known = known[:, self.non_constant]
        places = sizes.cumsum(0) - sizes + states[:, self.non_constant].clamp(min=0)
        hot = known.new_zeros(len(states), int(sizes.sum()))
        return torch.cat((hot.scatter(1, places, known), known), 1)

    @torch.no_grad()
    def sample(
        self,
        states: Tensor,
        extra: Tensor,
        known: Tensor,
        *,
        generator: torch.Generator | None,
        excluded: Sequence[int | None] | None = None,
    ) -> Tensor:
        """The states (rows, columns), with unknown ones drawn column by column.

        Args:
            states: states (rows, columns); used where `known`.
            extra: further inputs (rows, extra).
            known: mask of the given states (rows, columns).
            generator: source of the draws.
            excluded: for each column a state that is never drawn, or None.
        """
        states, known = states.clone(), known.clone()
        for j in range(len(self.sizes)):
            if self.sizes[j] == 1:
                states[:, j] = states[:, j].where(known[:, j], 0)
                continue
            chances = self.log_probs(j, states, known, extra).exp()
            if excluded is not None and excluded[j] is not None:
                chances[:, excluded[j]] = 0.0
            drawn = torch.multinomial(chances, 1, generator=generator).squeeze(1)
            states[:, j] = states[:, j].where(known[:, j], drawn)
            known[:, j] = True
        return states

    @torch.no_grad()
    def complete(
        self, states: Tensor, free: Tensor, known: Tensor, extra: Tensor, uniform: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The states (rows, columns) with the free ones drawn by inversion of uniform numbers, and
        their log-probability (rows,).

        Args:
            states: states (rows, columns); used where `known`.
            free: mask of the states to draw (rows, columns).
            known: mask of the given states (rows, columns).
            extra: further inputs (rows, extra).
            uniform: uniform random numbers (rows, columns).
        """
        states, known = states.where(known, -1), known.clone()
        total = uniform.new_zeros(len(states), dtype=torch.float64)
        for j in range(len(self.sizes)):
            drawn, log_prob = torch.zeros_like(states[:, j]), torch.zeros_like(total)
            if self.sizes[j] > 1:
                log_probs = self.log_probs(j, states, known, extra).double()
                ends = log_probs.exp().cumsum(1)
                drawn = torch.searchsorted(ends, uniform[:, j : j + 1] * ends[:, -1:]).squeeze(1)
                drawn = drawn.clamp(max=self.sizes[j] - 1)
                log_prob = log_probs.gather(1, drawn[:, None]).squeeze(1)
            states[:, j] = torch.where(free[:, j], drawn, states[:, j])
            total = total + log_prob.where(free[:, j], 0.0)
            known[:, j] |= free[:, j]
        return states, total
