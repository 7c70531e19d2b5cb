"""Two hidden layers whose divergence is one more matrix product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["sine", "tanh"]


@dataclass(frozen=True)
class Modulation:
    """What time and context do to the layers, each (width,) for all rows or (*batch, width).

    Attributes:
        shift1: c₁, of the first layer.
        shift2: c₂, of the second layer.
        offset: b, of the velocity.
        gate1: g₁; None for one.
        gate2: g₂; None for one.
        skip: s, the velocity's part proportional to x; None for zero.
    """

    shift1: Tensor
    shift2: Tensor
    offset: Tensor
    gate1: Tensor | None = None
    gate2: Tensor | None = None
    skip: Tensor | None = None


class TwoLayers:
    """v = W₃ tanh(z₂) + b + s ⊙ x, z₂ = g₂ ⊙ (W₂ σ(z₁)) + c₂, z₁ = g₁ ⊙ (W₁x) + c₁, with its divergence.

    With δ₁ = g₁ ⊙ σ′(z₁), δ₂ = g₂ ⊙ tanh′(z₂) and M = W₂ᵀ ∘ (W₁W₃), the same for every row,

        tr ∂v/∂x = δ₁ᵀ M δ₂ + Σ s.

    tanh(z) = 2 sigmoid(2z) − 1 is folded into the weights: on a CPU the sigmoid is the faster of the two,
    and its derivative takes no further activation. A layer fed by 2 sigmoid − 1 receives the −1 as a shift.

    Args:
        W1: (hidden1, dim)
        W2: (hidden2, hidden1)
        W3: (dim, hidden2)
        first: σ, "sine" or "tanh".
    """

    def __init__(self, W1: Tensor, W2: Tensor, W3: Tensor, first: Activation) -> None:
        self.sine = first == "sine"
        fold = 1 if self.sine else 2
        self.stretch = fold
        self.W1 = fold * W1
        self.W2 = 2 * fold * W2
        self.W2_sums = W2.new_zeros(len(W2)) if self.sine else 2 * W2.sum(1)
        self.W3 = 2 * W3
        self.W3_sums = W3.sum(1)
        self.M = (4 * fold**2) * W2.T * (W1 @ W3)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Everything prepared from the weights."""
        return self.W1, self.W2, self.W2_sums, self.W3, self.W3_sums, self.M

    def velocity(self, x: Tensor, modulation: Modulation) -> Tensor:
        """v (*batch, dim) at x (*batch, dim)."""
        a2 = self._second(self._activate(self._first(x, modulation)), modulation)
        return self._out(a2, x, modulation)

    def velocity_and_divergence(self, x: Tensor, modulation: Modulation) -> tuple[Tensor, Tensor]:
        """v (*batch, dim) and tr ∂v/∂x (*batch,) at x (*batch, dim)."""
        z1 = self._first(x, modulation)
        a1 = self._activate(z1)
        a2 = self._second(a1, modulation)
        v = self._out(a2, x, modulation)
        slope1 = torch.cos(z1) if self.sine else _sigmoid_slope(a1)
        inner = self._couple(slope1, modulation.gate1, modulation.gate2)
        slope2 = _sigmoid_slope(a2)
        divergence = (inner * slope2 if inner.requires_grad else inner.mul_(slope2)).sum(-1)
        return v, divergence if modulation.skip is None else divergence + modulation.skip.sum(-1)

    def _first(self, x: Tensor, modulation: Modulation) -> Tensor:
        return _gated(x, self.W1, modulation.gate1, self.stretch * modulation.shift1)

    def _activate(self, z1: Tensor) -> Tensor:
        return torch.sin(z1) if self.sine else _sigmoid(z1)

    def _second(self, a1: Tensor, modulation: Modulation) -> Tensor:
        sums = self.W2_sums if modulation.gate2 is None else modulation.gate2 * self.W2_sums
        return _sigmoid(_gated(a1, self.W2, modulation.gate2, 2 * modulation.shift2 - sums))

    def _out(self, a2: Tensor, x: Tensor, modulation: Modulation) -> Tensor:
        v = _affine(a2, self.W3, modulation.offset - self.W3_sums)
        return v if modulation.skip is None else torch.addcmul(v, modulation.skip, x)

    def _couple(self, slope1: Tensor, gate1: Tensor | None, gate2: Tensor | None) -> Tensor:
        """(δ₁ᵀ M) ⊙ g₂; gates shared by the rows go into M."""
        if gate1 is None or gate2 is None:
            return slope1 @ self.M
        if gate1.dim() == 1:
            return slope1 @ (gate1[:, None] * self.M * gate2)
        return ((gate1 * slope1) @ self.M) * gate2


def _sigmoid(z: Tensor) -> Tensor:
    """sigmoid z, in place where no gradient is asked."""
    return torch.sigmoid(z) if z.requires_grad else z.sigmoid_()


def _sigmoid_slope(a: Tensor) -> Tensor:
    """The derivative of the sigmoid where its value is a."""
    return torch.addcmul(a, a, a, value=-1)


def _gated(x: Tensor, weight: Tensor, gate: Tensor | None, shift: Tensor) -> Tensor:
    """gate ⊙ (weight x) + shift; a gate shared by the rows goes into the weights."""
    if gate is None:
        return _affine(x, weight, shift)
    if gate.dim() == 1:
        return _affine(x, gate[:, None] * weight, shift)
    return torch.addcmul(shift, gate, x @ weight.T)


def _affine(x: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    """weight x + shift, with a shift shared by the rows or one for each."""
    if shift.dim() == 1:
        return nn.functional.linear(x, weight, shift)
    return x @ weight.T + shift
