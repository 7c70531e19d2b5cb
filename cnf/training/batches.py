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
    """The source of the batches of a fit."""

    def __len__(self) -> int:
        """The number of rows."""
        raise NotImplementedError

    def draw(self, size: int, generator: torch.Generator) -> tuple[Any, ...]:
        """`size` rows in model coordinates, and their context or None."""
        raise NotImplementedError

    def identity(self) -> list[Any]:
        """A list for JSON that identifies the rows: it differs for other rows."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The state that has changed since the start of the fit."""
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a state."""
        raise NotImplementedError


class Batches(Sampler):
    """Batches that are drawn in proportion to weights and are spread evenly over the data.

    Even batches have less random variation, and therefore less noise in their gradients.

    Args:
        y: rows in model coordinates (rows, dim).
        context: their context in model coordinates (rows, context_dim), or None.
        weights: their weights (rows,), or None for equal ones.
        beside: further tensors with one entry per row (rows, …).
        cells: number of cells of equal weight over which a batch is spread.
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
        """`size` rows, their context, and their further tensors."""
        return self.at(stratified_uniform(size, generator, self.y.device))

    def at(self, levels: Tensor) -> tuple[Any, ...]:
        """The result of `draw` for the rows at levels (n,) in [0, 1)."""
        places = self.strata.places(levels)
        context = None if self.context is None else self.context[places]
        return self.y[places], context, *(part[places] for part in self.beside)

    def identity(self) -> list[Any]:
        """A list for JSON that identifies the rows: it differs for other rows."""
        parts = (self.y, self.context, self.weights)
        return [None if part is None else digest(part) for part in parts]

    def state_dict(self) -> dict[str, Any]:
        """An empty state, since the rows do not change."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from any state."""


def digest(numbers: Tensor) -> float:
    """A checksum that depends on the numbers and on their order."""
    flat = numbers.double().flatten()
    return (flat @ torch.linspace(1, 2, len(flat), dtype=flat.dtype, device=flat.device)).item()
