"""The context and the mask of the rows of a batch."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from cnf.transforms import Transform


class Given(NamedTuple):
    """What rows are given, one row each.

    Attributes:
        context: in the units of the data (rows, context_dim), or None.
        mask: which columns each row has (rows, dim), or None for all of them.
        condition: the context in model coordinates (rows, context_dim), or None.
    """

    context: Tensor | None = None
    mask: Tensor | None = None
    condition: Tensor | None = None


def finite_rows(rows: Tensor, given: Given, preprocess: Transform) -> Tensor:
    """Which rows (rows,) have finite numbers wherever they have a column, in their context too."""
    mask = None if given.mask is None else preprocess.column_mask(given.mask)
    finite = present(rows, mask).isfinite().all(1)
    return finite if given.context is None else finite & given.context.isfinite().all(1)


def present(z: Tensor, mask: Tensor | None) -> Tensor:
    """Base points z (rows, dim), zero in the columns that their rows lack."""
    return z if mask is None else z.where(mask, 0.0)
