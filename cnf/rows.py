"""Rows of data with their context and weights: what training, checks and reports pass on to each
other."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Beyond this, sums of squares over a table overflow float64.
LARGEST = 1e150
# Fewer rows cannot be split, fitted and validated.
FEWEST_ROWS = 10
# Share of the rows that a fit sets apart for validation where the user gives none.
HELD_OUT = 0.1


@dataclass(frozen=True)
class Rows:
    """Rows with their context and weights, in the units of the data where nothing else is said.

    Attributes:
        x: (rows, dim)
        context: (rows, context_dim) or None
        weights: (rows,), mean 1, or None
    """

    x: Tensor
    context: Tensor | None = None
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, places: Tensor) -> Rows:
        """The rows at `places`."""
        pick = [
            None if part is None else part[places] for part in (self.x, self.context, self.weights)
        ]
        return Rows(*pick)

    def split(self, fraction: float, generator: torch.Generator) -> tuple[Rows, Rows]:
        """A random part of at least one row set apart, and the rest first."""
        order = torch.randperm(len(self), generator=generator, device=self.x.device)
        held = min(max(1, round(fraction * len(self))), len(self) - 1)
        return self.take(order[held:]), self.take(order[:held])


def as_rows(name: str, x: Any, context: Any, weights: Any, device: torch.device) -> Rows:
    """Check arrays or tensors and put them on the device of the flow; rows of weight zero are left
    out.

    Raises:
        ValueError: for a wrong number of axes or rows, or numbers that are not finite, naming the
    row."""
    x = _matrix(name, x, device)
    context = (
        None if context is None else _matrix(f"{name}'s context", context, device, rows=len(x))
    )
    if weights is None:
        return Rows(x, context)
    weights = as_weights(weights, len(x), device)
    kept = Rows(x, context, weights).take(weights.nonzero().squeeze(1))
    return replace(kept, weights=kept.weights / kept.weights.mean())


def as_weights(weights: Any, rows: int, device: torch.device) -> Tensor:
    """Weights (rows,), as they are, on the device of the flow.

    Raises:
        ValueError: for another number of them, or numbers that are negative, not finite, or all
    zero."""
    weights = weights if isinstance(weights, Tensor) else np.asarray(weights)
    if tuple(weights.shape) != (rows,):
        raise ValueError(f"weights: expected shape ({rows},); got {tuple(weights.shape)}")
    weights = _matrix("weights", weights[:, None], device)[:, 0]
    if (weights < 0).any() or not weights.sum() > 0:
        raise ValueError("weights: expected numbers >= 0 with a positive sum")
    return weights


def _matrix(name: str, values: Any, device: torch.device, rows: int | None = None) -> Tensor:
    if not isinstance(values, Tensor):
        values = torch.tensor(np.asarray(values, dtype=np.float64))
    matrix = values.to(device)
    if not matrix.is_floating_point():
        matrix = matrix.double()
    if matrix.dim() != 2 or (rows is not None and len(matrix) != rows):
        wanted = "(rows, columns)" if rows is None else f"({rows}, columns)"
        raise ValueError(f"{name}: expected shape {wanted}; got {tuple(matrix.shape)}")
    bad = (~(matrix.abs() <= LARGEST)).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        value = matrix[row, column].item()
        why = f", beyond ±{LARGEST:.0e}" if math.isfinite(value) else ""
        raise ValueError(
            f"{name}: row {row}, column {column} (counted from 0) is {value:g}{why}; drop or fill it"
        )
    return matrix


def weighted_nll(log_prob: Tensor, weights: Tensor | None) -> tuple[float, float]:
    """WeightedRows mean of −log_prob and its standard error."""
    log_prob = log_prob.double()
    share = torch.ones_like(log_prob) if weights is None else weights.double()
    share = share / share.sum()
    mean = (share * log_prob).sum()
    return -mean.item(), (share.square() * (log_prob - mean).square()).sum().sqrt().item()


def evenly_spaced(x: Tensor, most: int) -> Tensor:
    """Places of at most `most` rows, spread evenly over the table."""
    places = torch.linspace(0, len(x) - 1, min(most, len(x)), device=x.device, dtype=torch.float64)
    return places.round().long()
