"""Training rows in model coordinates, and random batches of them."""

from __future__ import annotations

import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.rows import Rows
from cnf.training.stratified import StratifiedRows


def in_model_coordinates(flow: CNF, rows: Rows) -> Rows:
    """Rows and their context in the coordinates and the dtype of the field."""
    y, context, _ = flow.to_model_coordinates(rows.x, rows.context)
    return Rows(y, context, rows.weights)


class Batches:
    """Rows, and batches drawn in proportion to their weights and spread evenly over the data.

    The less chance there is in a batch, the less noise in its gradient.

    Args:
        y: rows in model coordinates (rows, dim).
        context: of the rows, in model coordinates (rows, context_dim), or None.
        weights: of the rows (rows,), or None for equal ones.
    """

    def __init__(self, y: Tensor, context: Tensor | None, weights: Tensor | None) -> None:
        self.y = y
        self.context = context
        self.weights = weights
        self.strata = StratifiedRows(y if context is None else torch.cat([y, context], 1), weights)

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """`size` rows and their context."""
        places = self.strata.draw(size, generator)
        return self.y[places], None if self.context is None else self.context[places]
