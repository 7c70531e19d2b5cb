"""Rows of data with their context and weights: what training, checks and reports pass on to each
other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Beyond this, sums of squares over a table overflow float64.
LARGEST = 1e150
# Fewer rows cannot be split, fitted and validated.
FEWEST_ROWS = 10
# Share of the rows that a fit sets apart for validation where the user gives none.
HELD_OUT = 0.1
# Processors compute a few rows, and what is left beyond a whole number of vectors, by other code,
# which rounds differently: matrix products of fewer than 16 rows do, and sums and sigmoids of what
# four vectors of 16 numbers leave over.
ROW_BLOCK = 64
# They also compute rows that begin within a vector of numbers by other code than those that begin a
# vector: so do narrow matrix products with rows of an odd number of numbers.
VECTOR = 8
MOST_NUMBERS = 2**62  # that an int64 tells apart


@dataclass(frozen=True)
class Rows:
    """Rows with their context and weights, in the user's units unless stated otherwise.

    Attributes:
        x: (rows, dim)
        context: (rows, context_dim), or None.
        weights: (rows,) with mean 1, or None.
    """

    x: Tensor
    context: Tensor | None = None
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, places: Tensor) -> Rows:
        """The rows at `places`."""
        context = None if self.context is None else self.context[places]
        return Rows(
            self.x[places], context, None if self.weights is None else self.weights[places]
        )

    def split(self, fraction: float, generator: torch.Generator) -> tuple[Rows, Rows]:
        """Training rows, and a random fraction (at least one row) held out for validation."""
        order = torch.randperm(len(self), generator=generator, device=self.x.device)
        held = min(max(1, round(fraction * len(self))), len(self) - 1)
        return self.take(order[held:]), self.take(order[:held])


@dataclass(frozen=True)
class Cells:
    """Rows of a table as inputs of a model.

    Attributes:
        values: numbers of the numeric columns (rows, numeric), zero where a cell shows none.
        states: the discrete state of every cell (rows, columns), see `cnf.Column`; 0 is an
            ordinary number.
    """

    values: Tensor
    states: Tensor

    def __len__(self) -> int:
        return len(self.states)

    def take(self, places: Tensor) -> Cells:
        """The rows at `places`."""
        return Cells(self.values[places], self.states[places])

    def to(self, device: torch.device) -> Cells:
        """The same rows on another device."""
        return Cells(self.values.to(device), self.states.to(device))


def held_out_split(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """The rows that a fit learns from under this seed, and the tenth that it sets apart."""
    return rows.split(HELD_OUT, torch.Generator(rows.x.device).manual_seed(seed))


def held_out_rows(rows: int) -> int:
    """How many of the rows validate a fit.

    >>> held_out_rows(100), held_out_rows(2)
    (10, 1)
    """
    return min(max(1, round(HELD_OUT * rows)), rows - 1)


def weighted_nll(log_prob: Tensor, weights: Tensor | None) -> tuple[float, float]:
    """Weighted mean of −log_prob (rows,), and its standard error."""
    log_prob = log_prob.double()
    share = torch.ones_like(log_prob) if weights is None else weights.double()
    share = share / share.sum()
    mean = (share * log_prob).sum()
    return -mean.item(), (share.square() * (log_prob - mean).square()).sum().sqrt().item()


def in_blocks(places: Tensor) -> Tensor:
    """Places (n,) of rows, the last one repeated up to a whole number of `ROW_BLOCK` rows.

    Results for this number of rows at once are bit-identical for each row, whatever the other rows
    are. If gradients are recorded, in which a repeated row would count twice, the indices are not
    changed.

    Example:
        >>> with torch.no_grad():
        ...     in_blocks(torch.tensor([5, 7])).unique(return_counts=True)[1]
        tensor([ 1, 63])
    """
    lacking = -len(places) % ROW_BLOCK
    if torch.is_grad_enabled() or not lacking or not len(places):
        return places
    return torch.cat((places, places[-1:].expand(lacking)))


def row_products(rows: Tensor, matrix: Tensor) -> Tensor:
    """The product of each row (*batch, inputs) with a matrix (outputs, inputs), bit-identical
    wherever the row stands among whole blocks of `ROW_BLOCK` rows.

        y = x Wᵀ (*batch, outputs)

    Rows are filled up with zeros, so that each of them begins a vector of the processor.

    Example:
        >>> row_products(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
        tensor([[3., 2.]])
    """
    lacking = -rows.shape[-1] % VECTOR
    if lacking:
        rows, matrix = (
            torch.cat((part, part.new_zeros(*part.shape[:-1], lacking)), -1)
            for part in (rows, matrix)
        )
    return rows @ matrix.contiguous().T


def distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows of truths or whole numbers (rows, columns), rising, and which of them each row
    is (rows,).

    As `torch.unique(dim=0)`, ten times as fast: a row is one number, whose digits are its cells.

    >>> distinct_rows(torch.tensor([[True, False], [False, True], [True, False]]))
    (tensor([[False,  True],
            [ True, False]]), tensor([1, 0, 1]))
    """
    if not rows.numel():
        return rows[:1], torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    number, numbers = rows.new_zeros(len(rows), dtype=torch.long), 1
    digits = rows.long() - rows.long().amin(0)
    for column, base in zip(digits.T, (digits.amax(0) + 1).tolist()):
        if numbers * base > MOST_NUMBERS:
            known, number = number.unique(return_inverse=True)
            numbers = len(known)
        number, numbers = number * base + column, numbers * base
    known, group = number.unique(return_inverse=True)
    distinct = rows.new_empty(len(known), rows.shape[1])
    distinct[group] = rows
    return distinct, group


def evenly_spaced(x: Tensor, most: int, *, repeat: bool = False) -> Tensor:
    """Indices of at most `most` rows of x, evenly spaced from the first to the last.

    With `repeat` there are always `most` indices: rows are repeated if there are fewer.

    Example:
        >>> evenly_spaced(torch.empty(5, 1), 3), evenly_spaced(torch.empty(2, 1), 4, repeat=True)
        (tensor([0, 2, 4]), tensor([0, 0, 1, 1]))
    """
    count = most if repeat else min(most, len(x))
    places = torch.linspace(0, len(x) - 1, count, device=x.device, dtype=torch.float64)
    return places.round().long()


@dataclass
class RunningMean:
    """Count, mean and sum of squared deviations of numbers that come in parts.

    >>> running = RunningMean()
    >>> running.add(torch.tensor([1.0, 2.0])), running.add(torch.tensor([6.0]))
    (None, None)
    >>> running.mean, running.deviations
    (3.0, 14.0)
    """

    count: int = 0
    mean: float = 0.0
    deviations: float = 0.0

    def add(self, values: Tensor) -> None:
        """Take numbers (n,) in."""
        if not len(values):
            return
        mean = values.mean()
        self.merge(RunningMean(len(values), mean.item(), (values - mean).square().sum().item()))

    def merge(self, other: RunningMean) -> None:
        """Merge the statistics of another one (Chan, Golub & LeVeque 1979)."""
        if not other.count:
            return
        old, self.count = self.count, self.count + other.count
        step = other.mean - self.mean
        self.mean += step * other.count / self.count
        self.deviations += other.deviations + step**2 * old * other.count / self.count

    @property
    def standard_error(self) -> float:
        """Of the mean."""
        return math.sqrt(self.deviations) / self.count if self.count else math.nan
