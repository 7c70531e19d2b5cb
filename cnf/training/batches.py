"""Training rows in model coordinates, and random batches of them."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.rows import Rows
from cnf.training.stratified import STRATA_CELLS, StratifiedRows, stratified_uniform


def in_model_coordinates(flow: CNF, rows: Rows) -> Rows:
    """Rows and their context in the coordinates and the dtype of the field."""
    y, context, _ = flow.to_model_coordinates(rows.x, rows.context)
    return Rows(y, context, rows.weights)


class Sampler(Protocol):
    """Where the batches of a fit come from."""

    def __len__(self) -> int:
        """How many rows there are."""
        raise NotImplementedError

    def draw(self, size: int, generator: torch.Generator) -> tuple[Any, ...]:
        """`size` rows in model coordinates, and their context or None."""
        raise NotImplementedError

    def identity(self) -> list[Any]:
        """What is another list for other rows, ready for JSON."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What has changed since the start of the fit."""
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a state."""
        raise NotImplementedError


class Batches(Sampler):
    """Rows, and batches drawn in proportion to their weights and spread evenly over the data.

    The less chance there is in a batch, the less noise in its gradient.

    Args:
        y: rows in model coordinates (rows, dim).
        context: of the rows, in model coordinates (rows, context_dim), or None.
        weights: of the rows (rows,), or None for equal ones.
        beside: what else goes with each row, (rows, …).
        cells: of equal weight over which a batch is spread.
    """

    def __init__(
        self,
        y: Tensor,
        context: Tensor | None,
        weights: Tensor | None,
        *beside: Tensor,
        cells: int = STRATA_CELLS,
    ) -> None:
        self.y = y
        self.context = context
        self.weights = weights
        self.beside = beside
        near = y if context is None else torch.cat([y, context], 1)
        self.strata = StratifiedRows(near, weights, cells)

    def __len__(self) -> int:
        return len(self.y)

    def draw(self, size: int, generator: torch.Generator) -> tuple[Any, ...]:
        """`size` rows, their context, and what else goes with them."""
        return self.at(stratified_uniform(size, generator, self.y.device))

    def at(self, levels: Tensor) -> tuple[Any, ...]:
        """What `draw` returns, of the rows at levels (n,) in [0, 1)."""
        places = self.strata.places(levels)
        context = None if self.context is None else self.context[places]
        return self.y[places], context, *(part[places] for part in self.beside)

    def identity(self) -> list[Any]:
        """What is another list for other rows, ready for JSON."""
        parts = (self.y, self.context, self.weights)
        return [None if part is None else digest(part) for part in parts]

    def state_dict(self) -> dict[str, Any]:
        """Nothing: rows stay where they are."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from any state."""


def digest(numbers: Tensor) -> float:
    """A sum that other numbers, or the same in another order, would hardly have."""
    flat = numbers.double().flatten()
    return (flat @ torch.linspace(1, 2, len(flat), dtype=flat.dtype, device=flat.device)).item()
