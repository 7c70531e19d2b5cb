"""Functions of the normal distribution by operators that every runtime has in float64.

ONNX has Erf, which runtimes know in float32 alone and which has no digits left in the tails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.special
import torch
from numpy.polynomial import chebyshev
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Terms of a Chebyshev series, and the argument that its middle lies at.
TERMS, MIDDLE = 22, 3.75
# Probabilities below this are taken for it.
SMALLEST = 1e-300
# log (−log p) of that, and of one half.
FARTHEST, NEAREST = math.log(-math.log(SMALLEST)), math.log(math.log(2))


class CommonOperators(TorchFunctionMode):
    """A block in which the functions below take the place of torch's.

    Example:
        >>> with CommonOperators():
        ...     torch.special.ndtri(torch.tensor([0.975]).double())
        tensor([1.9600], dtype=torch.float64)
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return REPLACED.get(func, func)(*args, **(kwargs or {}))


def erfc(x: Tensor) -> Tensor:
    """1 − erf x, with its digits in the right tail."""
    a = x.abs()
    tail = (-a * a).exp() * _scaled_tail(a)
    return torch.where(x < 0, 2 - tail, tail)


def log_ndtr(z: Tensor) -> Tensor:
    """log Φ(z), with its digits in the left tail."""
    a = math.sqrt(0.5) * z.abs()
    tail = (0.5 * _scaled_tail(a)).log() - a * a
    return torch.where(z < 0, tail, (1 - tail.exp()).log())


def ndtri(p: Tensor) -> Tensor:
    """Φ⁻¹(p), by a series in log (−log p)."""
    upper = p > 0.5
    small = clamp(torch.where(upper, 1 - p, p), min=SMALLEST)
    depth = (-small.log()).log()
    y = _series(_QUANTILES, (depth - NEAREST) * (2 / (FARTHEST - NEAREST)) - 1)
    return torch.where(upper, -y, y)


def asinh(x: Tensor) -> Tensor:
    """Of either sign, with its digits where x is large."""
    a = x.abs()
    return x.sign() * (a + (a * a + 1).sqrt()).log()


def sinh(x: Tensor) -> Tensor:
    """(eˣ − e⁻ˣ) / 2."""
    return 0.5 * (x.exp() - (-x).exp())


def clamp(x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """The numbers between two ends, which the exporter would round to float32."""
    for end, nearer in ((min, torch.maximum), (max, torch.minimum)):
        if end is not None:
            x = nearer(x, torch.full((), end, dtype=x.dtype))
    return x


REPLACED: dict[Callable[..., Any], Callable[..., Tensor]] = {
    torch.erfc: erfc,
    torch.special.erfc: erfc,
    torch.special.ndtri: ndtri,
    torch.special.log_ndtr: log_ndtr,
    torch.asinh: asinh,
    torch.sinh: sinh,
    torch.clamp: clamp,
    Tensor.clamp: clamp,
}


def _scaled_tail(a: Tensor) -> Tensor:
    """exp(a²) erfc a for a ≥ 0."""
    return _series(_TAILS, (a - MIDDLE) / (a + MIDDLE)) / (1 + 2 * a)


def _series(coefficients: Sequence[float], t: Tensor) -> Tensor:
    """A Chebyshev series at t in [−1, 1], by Clenshaw's recurrence."""
    first, *middle, last = coefficients
    after, now, twice = torch.zeros_like(t), torch.full_like(t, last), 2 * t
    for coefficient in reversed(middle):
        after, now = now, twice * now - after + coefficient
    return t * now - after + first


def _tail(t: Any) -> Any:
    """(1 + 2a) exp(a²) erfc a, smooth up to infinity, which t = 1 is (Shepherd & Laframboise
    1981)."""
    a = MIDDLE * (1 + t) / (1 - t)
    return (1 + 2 * a) * scipy.special.erfcx(a)


def _quantile(t: Any) -> Any:
    """Φ⁻¹(p) by log (−log p), scaled to [−1, 1]."""
    return scipy.special.ndtri_exp(-np.exp(NEAREST + (FARTHEST - NEAREST) * (1 + t) / 2))


_TAILS = chebyshev.chebinterpolate(_tail, TERMS).tolist()
_QUANTILES = chebyshev.chebinterpolate(_quantile, TERMS).tolist()
