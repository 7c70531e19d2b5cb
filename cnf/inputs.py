"""What users give as numbers: rows, contexts, weights, shapes and widths, checked."""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Sequence
from numbers import Real
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnf.rows import LARGEST, Rows

Numbers = Tensor | np.ndarray


def as_tensor(
    values: Numbers | Sequence[float] | float, device: torch.device | None = None, name: str = "x"
) -> Tensor:
    """A tensor unchanged, or an array as a new tensor in its dtype on `device`.

    Raises:
        ValueError: for anything other than an array of real numbers; `name` says which argument it
            is.

    Example:
        >>> as_tensor(np.array([[1.0, 2.0]])[:, ::-1])
        tensor([[2., 1.]], dtype=torch.float64)
    """
    found = values if isinstance(values, Tensor) else _from_array(values, device)
    if found is None or found.is_complex():
        raise ValueError(
            f"{name}: expected a tensor or an array of real numbers; got {_what(values)}: read files"
            " and encode text first, or use cnf.fit_table"
        )
    return found


def _from_array(values: Any, device: torch.device | None) -> Tensor | None:
    """An array as a tensor, or None if it is none of numbers."""
    try:
        array = np.array(values, order="C")
        if array.dtype == object and all(isinstance(cell, Real) for cell in array.flat):
            array = array.astype(np.float64)
        return torch.from_numpy(array).to(device)
    except (TypeError, ValueError):  # not numbers, or rows of different lengths
        return None


def _what(values: Any) -> str:
    """A value in a few words: text as it is, anything else by its type."""
    kind = brief(values) if isinstance(values, str) else type(values).__name__
    return f"{kind} of {values.dtype}" if isinstance(values, Tensor | np.ndarray) else kind


def brief(value: Any) -> str:
    """A value on one short line.

    >>> brief("a.csv"), brief([1] * 99)
    ("'a.csv'", '[1, 1, 1, 1, 1, 1, ...]')
    """
    return shorten(reprlib.repr(value), 80, placeholder=" ...")


def require_columns(name: str, values: Tensor, columns: int) -> None:
    """Refuse values that are not (*batch, columns).

    Raises:
        ValueError: naming the shape.
    """
    if values.shape[-1:] != (columns,):
        hint = f"; {name}[:, None] makes a column of it" if values.dim() == columns == 1 else ""
        raise ValueError(
            f"{name}: expected {columns} columns; got shape {tuple(values.shape)}{hint}"
        )


def require_context(context: Tensor | None, columns: int) -> None:
    """Refuse a context that is missing, not wanted, or not (*batch, columns).

    Raises:
        ValueError: naming the shape.
    """
    if context is None and columns:
        raise ValueError(
            f"context: expected {columns} columns, which the density depends on; got none: pass"
            " context="
        )
    if context is not None and not columns and context.shape[-1:] != (0,):
        raise ValueError(
            f"context: expected none, for a flow without context; got shape {tuple(context.shape)}:"
            " leave it out, or make the flow with context_dim="
        )
    if context is not None:
        require_columns("context", context, columns)


def joint_shape(x: Sequence[int], context: Sequence[int]) -> torch.Size:
    """The batch shape of rows and of their context together.

    Raises:
        ValueError: where they do not broadcast.
    """
    try:
        return torch.broadcast_shapes(x, context)
    except RuntimeError:
        raise ValueError(
            f"context: expected one row for all, or one for each of x; got {tuple(context)} for"
            f" {tuple(x)} rows of x"
        ) from None


def as_shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    """A number of draws, or a shape of them, as a shape.

    Raises:
        ValueError: for anything other than whole numbers >= 0.

    >>> as_shape(5), as_shape((2, 3)), as_shape(())
    ((5,), (2, 3), ())
    """
    try:
        sizes = tuple(map(operator.index, (shape,) if np.ndim(shape) == 0 else shape))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        sizes = (-1,)
    if min(sizes, default=0) < 0:
        raise ValueError(
            f"shape: expected a number of draws, or a tuple of such; got {brief(shape)}"
        )
    return sizes


def as_count(name: str, value: Any, least: int) -> int:
    """A whole number.

    Raises:
        TypeError: for anything else.
        ValueError: for a smaller one.
    """
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected a whole number; got {brief(value)}") from None
    if count < least:
        raise ValueError(f"{name}: expected at least {least}; got {count}")
    return count


def as_seed(seed: Any) -> int:
    """A seed for torch's generators.

    Raises:
        TypeError: for anything other than a whole number.
        ValueError: for one of more than 63 bits.
    """
    count = as_count("seed", seed, -(2**63))
    if count >= 2**63:
        raise ValueError(f"seed: expected a number below 2^63; got {brief(seed)}")
    return count


def require_generator(generator: Any) -> None:
    """Refuse a seed where a generator is expected.

    Raises:
        TypeError: naming the call that makes one.
    """
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(
            f"generator: expected a torch.Generator; got {brief(generator)}:"
            " torch.Generator().manual_seed(0) makes one"
        )


def as_device(device: Any) -> torch.device:
    """A device of torch.

    Raises:
        TypeError: for anything other than a device or its name.
        ValueError: for a name that torch does not know.
    """
    try:
        return torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"device: expected a device of torch, such as 'cpu' or 'cuda'; got {brief(device)}"
        ) from None
    except TypeError:
        raise TypeError(f"device: expected the name of a device; got {brief(device)}") from None


def as_widths(hidden: Sequence[int]) -> tuple[int, ...]:
    """Widths of hidden layers.

    Raises:
        TypeError: for anything other than a sequence of whole numbers, such as one number.
        ValueError: for a width below one, or no layer.
    """
    try:
        widths = tuple(map(operator.index, hidden))
    except TypeError:
        raise TypeError(
            "hidden: expected the width of each hidden layer, such as hidden=(64, 64); got"
            f" {brief(hidden)}"
        ) from None
    if min(widths, default=0) < 1:
        raise ValueError(f"hidden: expected one or more positive widths; got {widths}")
    return widths


def as_rows(name: str, x: Any, context: Any, weights: Any, device: torch.device) -> Rows:
    """Rows from arrays or tensors, checked and moved to `device`, without rows of weight zero.

    Raises:
        ValueError: for a wrong number of axes or rows, or a number that is not finite; the message
            names the row and column.
    """
    x = _matrix(name, x, device)
    if context is not None:
        context = _matrix(f"{name}'s context", context, device, rows=len(x))
    if weights is None:
        return Rows(x, context)
    mass = as_weights(weights, len(x), device)
    kept = mass.nonzero().squeeze(1)
    return Rows(x, context, mass / mass[kept].mean()).take(kept)


def as_weights(weights: Any, rows: int, device: torch.device) -> Tensor:
    """Weights (rows,), checked and moved to `device`.

    Raises:
        ValueError: for another number of weights, or weights that are negative, not finite, or all
            zero.
    """
    weights = as_tensor(weights, name="weights")
    if tuple(weights.shape) != (rows,):
        raise ValueError(f"weights: expected shape ({rows},); got {tuple(weights.shape)}")
    weights = _matrix("weights", weights[:, None], device)[:, 0]
    if (weights < 0).any() or not weights.sum() > 0:
        raise ValueError("weights: expected numbers >= 0 with a positive sum")
    return weights


def _matrix(name: str, values: Any, device: torch.device, rows: int | None = None) -> Tensor:
    if not isinstance(values, Tensor):
        values = as_tensor(values, name=name).double()
    as_tensor(values, name=name)
    # A copy of a tensor of inference mode, which could not be differentiated; a fit has no use for
    # the graph that rows come with.
    matrix = values.clone() if values.is_inference() else values.detach()
    matrix = matrix.to(device)
    if not matrix.is_floating_point():
        matrix = matrix.double()
    if matrix.dim() != 2 or (rows is not None and len(matrix) != rows):
        wanted = "(rows, columns)" if rows is None else f"({rows}, columns)"
        hint = "; write a single column as x[:, None]" if matrix.dim() == 1 else ""
        raise ValueError(f"{name}: expected shape {wanted}; got {tuple(matrix.shape)}{hint}")
    bad = (~(matrix.abs() <= LARGEST)).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        value = matrix[row, column].item()
        why = f", beyond ±{LARGEST:.0e}" if math.isfinite(value) else ""
        raise ValueError(
            f"{name}: row {row}, column {column} (counted from 0) is {value:g}{why}; drop or fill it"
        )
    return matrix
