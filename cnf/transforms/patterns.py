"""Rows grouped by which of their cells are there."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


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
    patterns, group = torch.unique(present, dim=0, return_inverse=True)
    order = group.argsort(stable=True)
    counts = torch.bincount(group, minlength=len(patterns)).tolist()
    yield from zip(patterns, order.split(counts))


def side_by_side(rows: Tensor) -> Tensor:
    """The places (rows,) of rows (rows, columns), equal ones side by side.

    >>> side_by_side(torch.tensor([[True], [False], [True]]))
    tensor([1, 0, 2])
    """
    if not rows.numel():
        return torch.arange(len(rows), device=rows.device)
    return torch.unique(rows, dim=0, return_inverse=True)[1].argsort(stable=True)
