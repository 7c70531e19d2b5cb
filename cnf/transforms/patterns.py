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


def by_present(present: Tensor) -> Tensor:
    """The places (rows,) of the rows of a mask (rows, columns), those of one pattern side by side.

    >>> by_present(torch.tensor([[True], [False], [True]]))
    tensor([1, 0, 2])
    """
    return torch.cat(
        [
            torch.zeros(0, dtype=torch.long, device=present.device),
            *(rows for _, rows in by_pattern(present)),
        ]
    )
