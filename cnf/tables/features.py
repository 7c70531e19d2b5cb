"""Symbols and context as columns of numbers that a network reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cnf.tables.columns import Column
from cnf.tables.marginals import Marginals
from cnf.tables.schema import Cells


def width_of(sizes: Sequence[int]) -> int:
    """Columns of the one-hot code of symbols; a column with one symbol has none."""
    return sum(size for size in sizes if size > 1)


def one_hot(symbols: Tensor, sizes: Sequence[int]) -> Tensor:
    """Symbols (rows, columns) as (rows, width) of zeros and ones in float64; all zeros for −1.

    >>> one_hot(torch.tensor([[1, 0], [-1, 0]]), [2, 1]).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    parts = [
        symbols[:, j : j + 1] == torch.arange(size, device=symbols.device)
        for j, size in enumerate(sizes)
        if size > 1
    ]
    return torch.cat([symbols.new_zeros(len(symbols), 0), *parts], 1).double()


class ContextFeatures(nn.Module):
    """Context cells as features: one-hot symbols, and numbers in nearly Gaussian coordinates.

    Args:
        columns: the context columns of a schema.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self.sizes = [column.symbols for column in columns]
        self.numeric = [i for i, column in enumerate(columns) if column.numeric]
        self.marginals = Marginals([columns[i] for i in self.numeric])
        self.width = width_of(self.sizes) + len(self.numeric)

    def fit(self, cells: Cells, weights: Tensor) -> None:
        """Fit the maps of the numbers."""
        self.marginals.fit(cells.values, cells.symbols[:, self.numeric] == 0, weights)

    def forward(self, cells: Cells) -> Tensor:
        """Features (rows, width) in float64; a number that is not there is zero."""
        numbers = self.marginals.to_model(cells.values)[0].where(cells.symbols[:, self.numeric] == 0, 0.0)
        return torch.cat((one_hot(cells.symbols, self.sizes), numbers), 1)
