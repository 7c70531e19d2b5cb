"""Imputation of missing cells from similar rows, which are found by random forests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnf.rows import Cells
from cnf.tables.columns import Column
from cnf.transforms.float64 import Float64Module

# Each pass redraws every missing cell given the others of its row (Gibbs sampling). A few passes
# remove the influence of the first draws.
PASSES = 3
# The feature of a node without children.
LEAF = -1


class Forest(nn.Module):
    """Regression trees whose leaves contain rows.

    Args:
        trees: number of trees.
        nodes: number of nodes in all trees.
        members: number of rows in all leaves, with repetitions.

    Attributes:
        roots: the first node of each tree (trees,).
        feature: the column that a node tests (nodes,), `LEAF` for a leaf.
        threshold: the largest number in the left branch (nodes,).
        branches: the left and the right node, or the first and the end of a leaf's members (nodes,
            2).
        members: indices of rows (members,).
    """

    roots: Tensor
    feature: Tensor
    threshold: Tensor
    branches: Tensor
    members: Tensor

    def __init__(self, trees: int, nodes: int, members: int) -> None:
        super().__init__()
        self.register_buffer("roots", torch.zeros(trees, dtype=torch.long))
        self.register_buffer("feature", torch.full((nodes,), LEAF, dtype=torch.int16))
        self.register_buffer("threshold", torch.zeros(nodes, dtype=torch.float32))
        self.register_buffer("branches", torch.zeros(nodes, 2, dtype=torch.int32))
        self.register_buffer("members", torch.zeros(members, dtype=torch.int32))

    @property
    def sizes(self) -> list[int]:
        """The constructor's arguments."""
        return [len(self.roots), len(self.feature), len(self.members)]

    def require_sound(self, rows: int, features: int) -> None:
        """Raise an error unless every path down a tree ends in a leaf with rows.

        Args:
            rows: number of rows.
            features: number of columns that a node may test.

        Raises:
            ValueError: for nodes, columns or rows that do not exist, and for cycles.
        """
        own = torch.arange(len(self.feature), device=self.feature.device)
        first, second = self.branches.T
        leaf = (first >= 0) & (first < second) & (second <= len(self.members))
        inner = (own < first) & (own < second) & (torch.maximum(first, second) < len(own))
        inner &= (self.feature >= 0) & (self.feature < features)
        sound = torch.where(self.feature == LEAF, leaf, inner).all()
        if not (sound and _within(self.roots, len(own)) and _within(self.members, rows)):
            raise ValueError("donors: expected trees whose paths end in leaves with rows")

    def leaves(self, numbers: Tensor, trees: Tensor) -> Tensor:
        """The leaf of one tree (rows,) for the numbers (rows, columns) of each row."""
        nodes = self.roots[trees]
        while (inner := self.feature[nodes] != LEAF).any():
            column = self.feature[nodes].long().clamp(min=0)[:, None]
            right = numbers.gather(1, column) > self.threshold[nodes, None]
            nodes = (
                self.branches[nodes].gather(1, right.long()).squeeze(1).long().where(inner, nodes)
            )
        return nodes

    def draw(self, numbers: Tensor, generator: torch.Generator | None) -> Tensor:
        """A random member (rows,) of each row's leaf in a random tree."""
        size, device = (2, len(numbers)), numbers.device
        chance = torch.rand(size, generator=generator, device=device, dtype=torch.float64)
        first, end = self.branches[self.leaves(numbers, (chance[0] * len(self.roots)).long())].T
        return self.members[first + (chance[1] * (end - first)).long()].long()


class Donors(Float64Module):
    """Training rows whose cells replace missing ones.

    There is one forest for each column, or for a longitude with its latitude, which predicts it
    from the other columns. A cell is drawn from the distribution of the forest,

        p(x_j | x_rest) = mean over trees t of the law of x_j in the leaf of t that x_rest lies in,

    so that it is a cell of a training row. Doove, van Buuren and Dusseldorp, Computational Statistics &
    Data Analysis 72 (2014); the distribution in a leaf follows Meinshausen, JMLR 7 (2006).

    Args:
        rows: number of rows.
        columns: number of modeled columns.
        numeric: number of numeric columns.
        forests: sizes of each `Forest`.

    Attributes:
        groups: the columns of each forest.
        center: the number subtracted from each column (columns,).
        numbers: cells from `as_numbers` minus the center (rows, columns).
        values, states: cells of the rows, as in `cnf.rows.Cells`.
    """

    center: Tensor
    numbers: Tensor
    values: Tensor
    states: Tensor

    def __init__(
        self, rows: int, columns: int, numeric: int, forests: Sequence[Sequence[int]]
    ) -> None:
        super().__init__()
        self.forests = nn.ModuleList(Forest(*sizes) for sizes in forests)
        self.register_buffer("center", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("numbers", torch.zeros(rows, columns, dtype=torch.float32))
        self.register_buffer("values", torch.zeros(rows, numeric, dtype=torch.float64))
        self.register_buffer("states", torch.zeros(rows, columns, dtype=torch.int32))

    @property
    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments as data for JSON."""
        rows, columns = self.states.shape
        forests = [forest.sizes for forest in self.forests]
        return {
            "rows": rows, "columns": columns, "numeric": self.values.shape[1], "forests": forests
        }  # fmt: skip

    def require_sound(
        self, columns: Sequence[Column], pairs: list[tuple[int, int]], context: int
    ) -> None:
        """Raise an error unless every missing cell can be drawn.

        Args:
            columns: the modeled columns.
            pairs: indices of each longitude and its latitude among them.
            context: number of features of the context.

        Raises:
            ValueError: for damaged trees, a wrong number of forests, and invalid states.
        """
        sizes = torch.tensor([column.n_states for column in columns], device=self.states.device)
        if len(self.forests) != len(groups_of(len(columns), pairs)):
            raise ValueError("donors: expected a forest for each column")
        if not ((self.states >= 0) & (self.states < sizes)).all():
            raise ValueError("donors: expected states of the columns")
        for forest in self.forests:
            assert isinstance(forest, Forest), "a module list says nothing of its modules"
            forest.require_sound(len(self.states), len(columns) + context)

    def replaced(
        self,
        cells: Cells,
        missing: Tensor,
        context: Tensor,
        columns: Sequence[Column],
        pairs: list[tuple[int, int]],
        generator: torch.Generator | None,
    ) -> Cells:
        """Complete cells, in which the missing ones are redrawn given the others of their row.

        Args:
            cells: rows whose missing cells were filled before.
            missing: mask of the missing cells (rows, columns).
            context: features of the context (rows, width).
            columns: the modeled columns.
            pairs: indices of each longitude and its latitude among them.
            generator: source of the draws.
        """
        values, states = cells.values.clone(), cells.states.clone()
        numbers = (as_numbers(cells, columns) - self.center).float()
        numbers = torch.cat((numbers, context.float()), 1)
        numeric = [j for j, column in enumerate(columns) if column.numeric]
        for _ in range(PASSES):
            for group, forest in zip(groups_of(len(columns), pairs), self.forests):
                rows = missing[:, group].any(1).nonzero().squeeze(1)
                assert isinstance(forest, Forest), "a module list says nothing of its modules"
                donors = forest.draw(numbers[rows], generator)
                for j in group:
                    numbers[rows, j] = self.numbers[donors, j]
                    states[rows, j] = self.states[donors, j].long()
                    if j in numeric:
                        k = numeric.index(j)
                        values[rows, k] = self.values[donors, k]
        return Cells(values, states)


def groups_of(columns: int, pairs: list[tuple[int, int]]) -> list[list[int]]:
    """The indices of columns that are drawn together: longitude with latitude, and each other
    column alone.

    >>> groups_of(4, [(1, 3)])
    [[0], [1, 3], [2]]
    """
    partner = dict(pairs)
    latitudes = set(partner.values())
    return [[j, partner[j]] if j in partner else [j] for j in range(columns) if j not in latitudes]


def _within(places: Tensor, count: int) -> bool:
    return bool(((places >= 0) & (places < count)).all())


def as_numbers(cells: Cells, columns: Sequence[Column]) -> Tensor:
    """Complete cells as numbers (rows, columns): the index of a level, or the value of an atom."""
    values, parts = iter(cells.values.cpu().numpy().T), []
    for column, states in zip(columns, cells.states.cpu().numpy().T):
        shown = column.decode(next(values) if column.numeric else None, states)
        parts.append(torch.from_numpy(column.numbers(shown).astype("float64")))
    return torch.stack(parts, 1).to(cells.values.device)
