"""Checked inputs: arrays of either library as numpy arrays, and callables on rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

Array: TypeAlias = "np.ndarray | torch.Tensor"
Limits: TypeAlias = "Sequence[tuple[float, float]]"
Function: TypeAlias = "Callable[[torch.Tensor], Array]"

ROWS_AT_ONCE = 8192  # bounds the memory of one call of a density or velocity
# Numbers that a column's values should be able to take, in one picture.
COARSEST = 10_000
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def numbers(x: Array | Sequence[Any]) -> np.ndarray:
    """The values of a tensor or an array, in double precision."""
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu().double().numpy()
    return np.asarray(x, dtype=float)


def table(x: Array, what: str, *, columns: int | None = None) -> np.ndarray:
    """The values of `x`, shape (n, columns); `what` names them in the error."""
    values = numbers(x)
    if values.ndim != 2 or 0 in values.shape or columns not in (None, values.shape[1]):
        width = "columns" if columns is None else columns
        raise ValueError(f"{what}: expected shape (n, {width}) with n ≥ 1, got {values.shape}")
    return values


def column_names(names: Sequence[str] | None, dim: int) -> list[str]:
    """The names given for `dim` columns, or x₁, x₂, …"""
    if names is None:
        return ["x" + str(i + 1).translate(SUBSCRIPTS) for i in range(dim)]
    if len(names) != dim:
        raise ValueError(
            f"names: expected one for each of {dim} columns, got {len(names)}: {list(names)}"
        )
    return [str(name) for name in names]


def window(limits: Limits) -> np.ndarray:
    """The corners ((left, right), (bottom, top)) of a picture, shape (2, 2)."""
    box = numbers(limits)
    if box.shape != (2, 2) or not np.isfinite(box).all() or (box[:, 0] >= box[:, 1]).any():
        raise ValueError(
            f"limits: expected ((left, right), (bottom, top)) in rising order, got {limits}"
        )
    return box


def centers(limits: Limits, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """The cells' centers along each side of a `resolution` × `resolution` grid that fills the
    limits."""
    if resolution < 2:
        raise ValueError(f"resolution: expected at least 2 cells a side, got {resolution}")
    steps = (np.arange(resolution) + 0.5) / resolution
    x, y = (low + (high - low) * steps for low, high in window(limits))
    return x, y


def as_rows(values: np.ndarray) -> torch.Tensor:
    """Rows (n, dim) for a function: in torch's default precision, and in double where columns are
    so far from zero that it would not resolve their values.

    >>> as_rows(np.array([[0.0], [1.0]])).dtype, as_rows(np.array([[1.7e9], [1.7e9 + 1]])).dtype
    (torch.float32, torch.float64)
    """
    finest = torch.finfo(torch.get_default_dtype()).eps * np.abs(values).max(0)
    spread = np.ptp(values, axis=0)
    blurred = (spread > 0) & (spread < COARSEST * finest)
    return torch.as_tensor(values, dtype=None if blurred.any() else torch.get_default_dtype())


def on_grid(
    function: Function, x: np.ndarray, y: np.ndarray, what: str, *, width: tuple[int, ...]
) -> np.ndarray:
    """The values of `function` on the grid x × y, shape (len(y), len(x), *width)."""
    points = as_rows(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2))
    with torch.no_grad():
        parts = [(len(rows), numbers(function(rows))) for rows in points.split(ROWS_AT_ONCE)]
    for rows, part in parts:
        if part.shape != (rows, *width):
            raise ValueError(
                f"{what}: expected shape {(rows, *width)} for {rows} points, got {part.shape}"
            )
    return np.concatenate([part for _, part in parts]).reshape(len(y), len(x), *width)
