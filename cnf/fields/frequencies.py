"""Whole frequencies of angles in the first layer of a field."""

from __future__ import annotations

import torch
from torch import Tensor

# Most units see one angle or two: what depends on more is made of those by the second layer.
TOGETHER = (0.5, 0.4, 0.1)
# Of the units of a field with real columns too, how many see angles.
SHARE_WITH_REALS = 0.5


def whole_frequencies(units: int, angles: int, scale: float, *, alone: bool) -> Tensor:
    """Frequencies (units, angles): whole numbers, most of them zero, drawn by torch's own
    generator.

    Args:
        units: number of hidden units.
        angles: number of angles.
        scale: of the frequencies that are not zero; one is the least.
        alone: whether a field sees nothing but angles; else some of its units see none of them.

    Example:
        >>> found = whole_frequencies(100, 3, 2.0, alone=True)
        >>> found.shape, bool((found == found.round()).all()), bool((found != 0).any(1).all())
        (torch.Size([100, 3]), True, True)
    """
    drawn = (torch.randn(units, angles) * scale).round()
    sign = torch.randint(0, 2, (units, angles)) * 2.0 - 1
    drawn = drawn.where(drawn != 0, sign)
    rank = torch.rand(units, angles).argsort(1).argsort(1)
    shares = torch.tensor(TOGETHER[:angles])
    seen = 1 + torch.multinomial(shares, units, replacement=True)
    if not alone:
        seen = seen * (torch.rand(units) < SHARE_WITH_REALS)
    return drawn.where(rank < seen[:, None], 0.0)
