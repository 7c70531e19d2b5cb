"""A map from bounded columns to the whole real line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cnf.registry import register
from cnf.transforms.affine import Transform

Range = tuple[float | None, float | None]


@register
class BoundedToReal(Transform):
    """y = log(x − a), −log(b − x) or log((x − a)/(b − x)) if a column has a lower end a, an upper
    end b or both; else y = x.

    For every y, x lies inside the range. Outside it, the density is zero and the log-Jacobian is
    −∞.

    Args:
        ranges: (a, b) of every column, None for no end.

    Raises:
        ValueError: for ends that are not finite or not increasing.

    Example:
        >>> prices = BoundedToReal([(0.0, None)])
        >>> prices.inverse(torch.tensor([[-30.0], [0.0], [2.0]])).flatten() > 0
        tensor([True, True, True])
        >>> prices(torch.tensor([[1.0], [-1.0]]))[1]
        tensor([0., -inf], dtype=torch.float64)
    """

    lower: Tensor
    upper: Tensor
    has_lower: Tensor
    has_upper: Tensor

    def __init__(self, ranges: Sequence[Range]) -> None:
        super().__init__(len(ranges))
        for low, high in ranges:
            given = [end for end in (low, high) if end is not None]
            if not all(map(math.isfinite, given)) or given != sorted(set(given)):
                raise ValueError(
                    f"range of a column: expected finite ends in rising order; got {low}, {high}"
                )
        for name, ends in zip(("lower", "upper"), zip(*ranges)):
            self.register_buffer(
                name, torch.tensor([end or 0.0 for end in ends], dtype=torch.float64)
            )
            self.register_buffer(f"has_{name}", torch.tensor([end is not None for end in ends]))

    @property
    def bounded(self) -> bool:
        """Whether a column has an end."""
        return bool((self.has_lower | self.has_upper).any())

    def config(self) -> dict[str, Any]:
        """Empty, because all settings are tensors."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int) -> BoundedToReal:
        """A map without ends, whose tensors are then read from a file."""
        return cls([(None, None)] * dim, **config)

    def outside(self, x: Tensor) -> Tensor:
        """Which cells (*batch, dim) of x are not inside the range of their column."""
        return (self.has_lower & (x <= self.lower)) | (self.has_upper & (x >= self.upper))

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Model coordinates y (*batch, dim) in float64, and log |det ∂y/∂x| (*batch,)."""
        x = x.double()
        outside = self.outside(x)
        # What is outside has to stand somewhere: at zero, the middle of the line.
        log_below, log_above = self._logs(x.where(~outside, self._close(torch.zeros_like(x))))
        y = torch.where(self.has_lower | self.has_upper, log_below - log_above, x)
        width = torch.where(self.has_lower & self.has_upper, self.upper - self.lower, 1.0).log()
        ladj = (width - log_below - log_above).sum(-1)
        return y, ladj.masked_fill(outside.any(-1), -torch.inf)

    def inverse(
        self, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Data x (*batch, dim), in the dtype of y, inside the range for every y."""
        x = self._close(y.double()).to(y.dtype)
        lower, upper = self.lower.to(x.dtype), self.upper.to(x.dtype)
        lowest = torch.nextafter(lower, torch.full_like(lower, torch.inf))
        highest = torch.nextafter(upper, torch.full_like(upper, -torch.inf))
        x = torch.where(self.has_lower, x.maximum(lowest), x)
        return torch.where(self.has_upper, x.minimum(highest), x)

    def pushforward(
        self, v: Tensor, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """dx/dt (*batch, dim) for dy/dt = v at y (*batch, dim), in the dtype of v."""
        log_below, log_above = self._logs(self._close(y.double()))
        width = torch.where(self.has_lower & self.has_upper, self.upper - self.lower, 1.0)
        return (v.double() * (log_below + log_above).exp() / width).to(v.dtype)

    def _logs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log(x − a) and log(b − x), zero where there is no end."""
        return (
            torch.where(self.has_lower, x - self.lower, 1.0).log(),
            torch.where(self.has_upper, self.upper - x, 1.0).log(),
        )

    def _close(self, y: Tensor) -> Tensor:
        both = self.has_lower & self.has_upper
        below, above = self.has_lower & ~both, self.has_upper & ~both
        # An exponential that overflows where it is not chosen would have a derivative of NaN.
        x = torch.where(below, self.lower + torch.where(below, y, 0.0).exp(), y)
        x = torch.where(above, self.upper - torch.where(above, -y, 0.0).exp(), x)
        return torch.where(both, torch.lerp(self.lower, self.upper, y.sigmoid()), x)
