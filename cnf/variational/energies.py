"""The planar energies of Rezende and Mohamed (2015, table 1), made proper and normalized.

p(x) = exp(−U(x)) / Z. Apart from a sine wave, U2 to U4 do not depend on x₁, so their exp(−U) has
no finite integral. Here the term ½ (max(0, |x₁| − 4) / 0.4)² confines them; it is zero within the
frame of the paper's figures. Z is computed by quadrature.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

# The trapezoidal rule converges faster than any power of the spacing for smooth densities. The kink
# in the second derivative of the confinement costs 1e-7 here.
EDGE, SPACING = 8.0, 0.02


@dataclass(frozen=True)
class Energy:
    """A density p(x) ∝ exp(−U(x)) on the plane, given by its energy.

    Args:
        name: its name in the paper.
        potential: U (*batch,) of x₁ and x₂, each (*batch,).
    """

    name: str
    potential: Callable[[Tensor, Tensor], Tensor]

    def log_density(self, x: Tensor) -> Tensor:
        """−U (*batch,) of points x (*batch, 2): log p(x) + log Z, in nats.

        Raises ValueError where the last axis is not 2.

        >>> ENERGIES["U2"].log_density(torch.tensor([[0.0, 0.0], [0.0, 0.4]]))
        tensor([-0.0000, -0.5000])
        """
        if x.shape[-1:] != (2,):
            raise ValueError(
                f"{self.name} is planar: expected points (*batch, 2); got {tuple(x.shape)}"
            )
        return -self.potential(*x.unbind(-1))

    @cached_property
    def log_normalizer(self) -> float:
        """log Z = log ∫ exp(−U) dx in nats, by quadrature on [−8, 8]²; the error is below 1e-6.

        >>> round(ENERGIES["U2"].log_normalizer, 6)  # log of 0.4 √2π (8 + 0.4 √2π)
        2.200167
        """
        axis = torch.arange(-EDGE, EDGE + SPACING / 2, SPACING, dtype=torch.float64)
        columns = [self.log_density(torch.cartesian_prod(x1, axis)) for x1 in axis.split(100)]
        return (torch.cat(columns).logsumexp(0) + 2 * math.log(SPACING)).item()

    def log_prob(self, x: Tensor) -> Tensor:
        """log p (*batch,) of points x (*batch, 2), normalized, in nats."""
        return self.log_density(x) - self.log_normalizer


def _ring(x1: Tensor, x2: Tensor) -> Tensor:
    radius = (x1.square() + x2.square()).sqrt()
    return 0.5 * ((radius - 2) / 0.4).square() + _either((x1 - 2) / 0.6, (x1 + 2) / 0.6)


def _wave(x1: Tensor, x2: Tensor) -> Tensor:
    return 0.5 * ((x2 - _sine(x1)) / 0.4).square() + _confinement(x1)


def _split_wave(x1: Tensor, x2: Tensor) -> Tensor:
    offset = x2 - _sine(x1)
    dip = 3 * torch.exp(-0.5 * ((x1 - 1) / 0.6).square())
    return _either(offset / 0.35, (offset + dip) / 0.35) + _confinement(x1)


def _forked_wave(x1: Tensor, x2: Tensor) -> Tensor:
    offset = x2 - _sine(x1)
    fork = 3 * torch.sigmoid((x1 - 1) / 0.3)
    return _either(offset / 0.4, (offset + fork) / 0.35) + _confinement(x1)


def _sine(x1: Tensor) -> Tensor:
    return torch.sin(0.5 * math.pi * x1)


def _either(a: Tensor, b: Tensor) -> Tensor:
    """−log (exp(−½a²) + exp(−½b²))."""
    return -torch.logaddexp(-0.5 * a.square(), -0.5 * b.square())


def _confinement(x1: Tensor) -> Tensor:
    return 0.5 * ((x1.abs() - 4).clamp(min=0) / 0.4).square()


ENERGIES: dict[str, Energy] = {
    energy.name: energy
    for energy in (
        Energy("U1", _ring),
        Energy("U2", _wave),
        Energy("U3", _split_wave),
        Energy("U4", _forked_wave),
    )
}
