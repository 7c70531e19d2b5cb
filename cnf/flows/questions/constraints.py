"""Constraints on rows: for each column nothing, its state, or a set that contains its cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from cnf.flows.questions.noise import Noise
from cnf.rows import Cells
from cnf.transforms.normal import ndtr

UNKNOWN = -1
# Below this probability under the column's own distribution, numbers are spread evenly over an
# interval instead.
SMALLEST_MASS = 1e-6


class ColumnMaps(Protocol):
    """Maps of single columns to nearly Gaussian coordinates."""

    def by_cell(self, x: Tensor, /) -> tuple[Tensor, Tensor]:
        """Coordinates and the logarithm of each cell's slope."""

    def inverse(self, y: Tensor, /) -> Tensor:
        """Numbers in the units of the data."""


@dataclass(frozen=True)
class Constraints:
    """What is known of rows.

    Attributes:
        states: the state of each cell, `UNKNOWN` where nothing is known (rows, columns).
        lower: lower end of a known numeric cell (rows, numeric).
        upper: upper end; equal to the lower one for a number that is known exactly.
        choices: for a column whose state may be one of several, those states, the same for all
            rows.
    """

    states: Tensor
    lower: Tensor
    upper: Tensor
    choices: Mapping[int, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.states)

    @property
    def known(self) -> Tensor:
        """Which columns are constrained (rows, columns)."""
        known = self.states != UNKNOWN
        for column in self.choices:
            known = known | (torch.arange(known.shape[1], device=known.device) == column)
        return known

    def precise(self, numeric: Sequence[int]) -> Tensor:
        """Which columns are known to the last digit (rows, columns)."""
        known = self.states != UNKNOWN
        numbers = list(numeric)
        point = (self.lower == self.upper) | (self.states[:, numbers] != 0)
        known = known.index_copy(
            1, torch.tensor(numbers, device=known.device, dtype=torch.long),
            known[:, numbers] & point,
        )  # fmt: skip
        for column in self.choices:
            known = known & (torch.arange(known.shape[1], device=known.device) != column)
        return known

    def joined(self, other: Constraints, numeric: Sequence[int]) -> Constraints:
        """Both combined: `other` first, then this one. A single row applies to all rows."""
        count = max(len(self), len(other))
        one, two = self.expand(count), other.expand(count)
        new = two.known[:, list(numeric)]
        return Constraints(
            torch.where(two.states != UNKNOWN, two.states, one.states),
            torch.where(new, two.lower, one.lower),
            torch.where(new, two.upper, one.upper),
            {**one.choices, **two.choices},
        )

    def expand(self, rows: int) -> Constraints:
        """One row repeated."""
        if len(self) == rows:
            return self
        return self._map(lambda part: part.expand(rows, -1))

    def repeat(self, times: int) -> Constraints:
        """The rows repeated several times, one after another."""
        return self._map(lambda part: part.repeat(times, 1))

    def centered(self, steps: Tensor) -> Constraints:
        """The same with intervals of a single step (numeric,) as known numbers."""
        width, center = self.upper - self.lower, (self.upper + self.lower) / 2
        single = width <= steps * (1 + 1e-9)
        lower, upper = (center.where(single, end) for end in (self.lower, self.upper))
        return replace(self, lower=lower, upper=upper)

    def take(self, places: Tensor) -> Constraints:
        """The rows at `places`."""
        return self._map(lambda part: part[places])

    def _map(self, fn: Callable[[Tensor], Tensor]) -> Constraints:
        return replace(self, states=fn(self.states), lower=fn(self.lower), upper=fn(self.upper))

    def draw(
        self, marginals: ColumnMaps, numeric: Sequence[int], noise: Noise
    ) -> tuple[Cells, Tensor]:
        """Cells within the sets (rows,), and the log-volume of each draw (rows,)."""
        values, log_volume = _within(self.lower, self.upper, marginals, noise.within)
        states = self.states
        for column, allowed in self.choices.items():
            place = (noise.states[:, column] * len(allowed)).long().clamp(max=len(allowed) - 1)
            states = states.index_copy(
                1, torch.tensor([column], device=states.device), allowed[place][:, None]
            )
        shown = states[:, list(numeric)] == 0
        volume = log_volume.where(shown, 0.0).sum(1)
        volume = volume + sum(math.log(len(allowed)) for allowed in self.choices.values())
        return Cells(values.where(shown, 0.0), states), volume


def _within(
    lower: Tensor, upper: Tensor, marginals: ColumnMaps, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """A number in each interval (rows, numeric), spread as the column's own distribution, and the
    logarithm of the volume that it stands for; a number that is known is its own interval."""
    point = lower == upper
    if point.all():
        return lower, torch.zeros_like(lower)
    low, high = (_probability(end, marginals) for end in (lower, upper))
    even = high - low < SMALLEST_MASS
    y = torch.special.ndtri((low + uniform * (high - low)).clamp(1e-300, 1 - 1e-16))
    spread = marginals.inverse(y.where(~even, 0.0)).clamp(lower, upper)
    values = torch.where(even, lower + uniform * (upper - lower), spread).where(~point, lower)
    y, log_slope = marginals.by_cell(values)
    log_density = log_slope - 0.5 * y.square() - 0.5 * math.log(2 * math.pi)
    log_volume = torch.where(even, (upper - lower).log(), (high - low).log() - log_density)
    return values, log_volume.where(~point, 0.0)


def _probability(end: Tensor, marginals: ColumnMaps) -> Tensor:
    """The column's own distribution function at the end of an interval."""
    inside = end.isfinite()
    found = ndtr(marginals.by_cell(end.where(inside, 0.0))[0])
    return torch.where(inside, found, (end > 0).to(found.dtype))
