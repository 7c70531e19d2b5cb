"""The standard normal distribution and its quantiles, with all digits far out too."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# A probability below which logarithms are needed.
FAR_TAIL = 1e-30
LOG_2PI = math.log(2 * math.pi)


def ndtr(z: Tensor) -> Tensor:
    """Φ(z), with all its digits in the left tail too."""
    return 0.5 * torch.special.erfc(-math.sqrt(0.5) * z)


def quantile(p: Tensor, smallest: float = FAR_TAIL) -> Tensor:
    """Φ⁻¹(p) for p from the smallest to ½, by `ndtri`, good to nine digits, and a step of Newton's
    method.

    >>> quantile(torch.tensor(1e-10).double())
    tensor(-6.3613, dtype=torch.float64)
    """
    y = torch.special.ndtri(p.clamp(min=smallest, max=0.5))
    return y - (ndtr(y) - p) * (0.5 * (y.square() + LOG_2PI)).exp()


def far_quantile(log_p: Tensor) -> Tensor:
    """Φ⁻¹(p) for small p, given log p.

    >>> far_quantile(torch.tensor(-5000.0).double())
    tensor(-99.9447, dtype=torch.float64)
    """
    depth = -2 * log_p.clamp(max=-10)
    y = -(depth - (2 * math.pi * depth).log()).sqrt()
    for _ in range(5):  # Newton's method on log Φ(y) = log p
        log_ndtr = torch.special.log_ndtr(y)
        log_slope = -0.5 * y.square() - 0.5 * LOG_2PI - log_ndtr
        y = y - (log_ndtr - log_p.clamp(max=-10)) * torch.exp(-log_slope)
    return y
