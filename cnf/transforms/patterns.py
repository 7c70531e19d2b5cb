"""Rows grouped by which of their cells are there."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cnf.rows import distinct_rows


def by_pattern(present: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each pattern (columns,) of a mask (rows, columns), with the places of its rows.

    >>> [(p.tolist(), rows.tolist()) for p, rows in by_pattern(torch.tensor([[True], [False], [True]]))]
    [([False], [1]), ([True], [0, 2])]
    """
    if not len(present):
        return
    if not present.shape[1]:
        yield present[0], torch.arange(len(present), device=present.device)
        return
    patterns, group = distinct_rows(present)
    order = group.argsort(stable=True)
    counts = torch.bincount(group, minlength=len(patterns)).tolist()
    yield from zip(patterns, order.split(counts))


def side_by_side(rows: Tensor) -> Tensor:
    """The places (rows,) of rows (rows, columns) of truths or whole numbers, equal ones side by side.

    >>> side_by_side(torch.tensor([[True], [False], [True]]))
    tensor([1, 0, 2])
    """
    return distinct_rows(rows)[1].argsort(stable=True)
