"""States and context as numeric inputs of a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cnf.fields import Geometry
from cnf.rows import Cells
from cnf.tables.columns import Column
from cnf.tables.spaces import charts_of
from cnf.transforms import Charts
from cnf.transforms.float64 import Float64Module
from cnf.transforms.marginals import MarginalTransform

# Columns with more atoms are encoded by normal scores, which are limited to this absolute value.
MOST_ONE_HOT, MOST_SCORE = 16, 3.0


class StateFeatures(Float64Module):
    """States as numbers: one-hot, or four numbers for a numeric column with many atoms.

    The four numbers are a flag for an ordinary number, a flag for a missing cell, and for an atom its
    normal score (the quantile of its rank among the atoms) and the square of the score. A column with
    one state has no features. If the state is unknown (−1), all features are zero.

    Args:
        columns: the modeled columns of a schema.

    Example:
        >>> features = StateFeatures([Column("group", "categorical", levels=("a", "b"))])
        >>> features(torch.tensor([[1], [-1]])).tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self.sizes = [column.n_states for column in columns]
        self.numeric = [column.numeric for column in columns]
        self.missing = [column.missing_state for column in columns]
        self.non_constant = [j for j, size in enumerate(self.sizes) if size > 1]
        self.coarse = {j for j in self.non_constant if len(columns[j].atoms) > MOST_ONE_HOT}
        self.width = sum(4 if j in self.coarse else self.sizes[j] for j in self.non_constant)
        for j in self.coarse:
            self.register_buffer(f"scores{j}", torch.zeros(self.sizes[j], dtype=torch.float64))

    def categories(self) -> list[tuple[int, int]]:
        """The first feature and the number of states of every column without numbers."""
        found, first = [], 0
        for j in self.non_constant:
            if not self.numeric[j]:
                found.append((first, self.sizes[j]))
            first += 4 if j in self.coarse else self.sizes[j]
        return found

    @torch.no_grad()
    def fit(self, states: Tensor, weights: Tensor) -> None:
        """Determine the scores of atoms from states (rows, columns) and the weights of rows
        (rows,)."""
        for j in self.coarse:
            atoms = (states[:, j] > 0) & (states[:, j] != self.missing[j])
            mass = torch.bincount(states[atoms, j], weights[atoms], minlength=self.sizes[j])
            middles = (mass.cumsum(0) - mass / 2) / mass.sum().clamp(min=1e-12)
            self.get_buffer(f"scores{j}").copy_(
                torch.special.ndtri(middles).clamp(-MOST_SCORE, MOST_SCORE)
            )

    def forward(self, states: Tensor) -> Tensor:
        """Features (rows, width) in float64 of states (rows, columns)."""
        parts = [self._of(j, states[:, j]) for j in self.non_constant]
        return torch.cat([states.new_zeros(len(states), 0).double(), *parts], 1)

    def _of(self, j: int, shown: Tensor) -> Tensor:
        if j not in self.coarse:
            return one_hot(shown, self.sizes[j])
        number, missing = shown == 0, shown == self.missing[j]
        atom = (shown > 0) & ~missing
        score = self.get_buffer(f"scores{j}")[shown.clamp(min=0)].where(atom, 0.0)
        return torch.stack(
            (number.double(), (missing & (shown > 0)).double(), score, score.square()), 1
        )


def one_hot(states: Tensor, size: int) -> Tensor:
    """States (rows,) one-hot encoded as (rows, size) in float64; all zeros for −1."""
    return (states[:, None] == torch.arange(size, device=states.device)).double()


class ContextFeatures(nn.Module):
    """Context cells as features: one-hot states, and numbers in nearly Gaussian coordinates.

    Args:
        columns: the context columns of a schema.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self.states = StateFeatures(columns)
        self.numeric = [i for i, column in enumerate(columns) if column.numeric]
        numeric = [columns[i] for i in self.numeric]
        self.charts = charts_of(numeric)
        self.reals = list(range(len(numeric))) if self.charts is None else self.charts.reals
        self.marginals = MarginalTransform([numeric[k].support for k in self.reals])
        self.width = self.states.width + len(self.reals) + width_around(self.charts)

    def fit(self, cells: Cells, weights: Tensor) -> None:
        """Fit the transforms of the numbers."""
        self.states.fit(cells.states, weights)
        present = cells.states[:, self.numeric] == 0
        self.marginals.fit(cells.values[:, self.reals], present[:, self.reals], weights)

    def forward(self, cells: Cells) -> Tensor:
        """Features (rows, width) in float64; an absent number is zero. All features are NaN if a cell is
        missing in a column that had no missing cells in training. An angle is encoded by cosine and sine, a
        point on a sphere by its unit vector."""
        present = cells.states[:, self.numeric] == 0
        numbers = self.marginals.by_cell(cells.values[:, self.reals])[0]
        numbers = numbers.where(present[:, self.reals], 0.0)
        if self.charts is not None:
            numbers = torch.cat((numbers, around(self.charts, cells.values, present)), 1)
        features = torch.cat((self.states(cells.states), numbers), 1)
        return features.masked_fill((cells.states < 0).any(1, keepdim=True), torch.nan)


def around(charts: Charts, values: Tensor, present: Tensor) -> Tensor:
    """Cosine and sine of angles, and unit vectors (rows, 2 angles + 3 spheres) of numbers (rows,
    numeric); zero for absent ones."""
    count = len(charts.reals)
    there = present[:, charts.coordinates[count:]]
    space = Geometry(0, charts.geometry.angles, charts.geometry.spheres)
    points = space.chord(charts(values)[0][:, count:])
    angles = there[:, : space.angles]
    return points.where(torch.cat((angles, angles, there[:, space.angles :]), 1), 0.0)


def width_around(charts: Charts | None) -> int:
    """The number of columns of `around`."""
    return 0 if charts is None else 2 * charts.geometry.angles + 3 * charts.geometry.spheres
