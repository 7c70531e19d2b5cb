"""The field whose divergence is one more matrix product."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cnf.fields.base import BoundField, TimeFeatures, VelocityField


class GatedField(VelocityField):
    """Two hidden layers, gated and shifted by time and context, with the divergence in closed form.

    v(t, x) = W₃ tanh(z₂) + b + s ⊙ x with z₂ = g₂ ⊙ (W₂ σ(z₁)) + c₂ and z₁ = g₁ ⊙ (W₁x) + c₁, where the gates
    g, the shifts c, the offset b and the skip s depend on time and context. With δ₁ = g₁ ⊙ σ′(z₁),
    δ₂ = g₂ ⊙ tanh′(z₂) and M = W₂ᵀ ∘ (W₁W₃), which is the same for every row,

        tr ∂v/∂x = δ₁ᵀ M δ₂ + Σ s :

    the price of one more hidden-by-hidden product, whatever `dim` is.

    Args:
        dim: number of columns of x.
        hidden: widths of the two hidden layers.
        context_dim: number of columns of the context.
        first: activation σ of the first layer: "sine" makes it a layer of Fourier features with trained
            frequencies, which resolves fine structure far sooner than "tanh".
        frequency: scale of the frequencies that W₁ starts with, for x of unit variance.
        modulation: width of the small network that makes gates and shifts from time and context.

    Raises:
        ValueError: if `hidden` is not two positive widths, or `first` is unknown.

    Example:
        >>> field = GatedField(3, hidden=(16, 16)).bind()
        >>> v, divergence = field.velocity_and_divergence(torch.tensor(0.5), torch.zeros(10, 3))
        >>> v.shape, divergence.shape
        (torch.Size([10, 3]), torch.Size([10]))
    """

    def __init__(
        self,
        dim: int,
        hidden: tuple[int, int] = (64, 64),
        *,
        context_dim: int = 0,
        first: Literal["sine", "tanh"] = "sine",
        frequency: float = 3.0,
        modulation: int = 64,
    ) -> None:
        super().__init__(dim, context_dim)
        if len(hidden) != 2 or min(hidden) < 1:
            raise ValueError(f"hidden of a GatedField: expected two positive widths; got {tuple(hidden)}")
        if first not in ("sine", "tanh"):
            raise ValueError(f"first: expected sine or tanh; got {first!r}")
        self.hidden = tuple(hidden)
        self.first = first
        self.frequency = frequency
        self.modulation = modulation
        units, second = hidden
        self.W1 = nn.Parameter(torch.randn(units, dim) * (frequency / math.sqrt(dim)))
        self.W2 = nn.Parameter(torch.randn(second, units) / math.sqrt(units))
        self.W3 = nn.Parameter(torch.randn(dim, second) * (0.1 / math.sqrt(second)))
        self.time = TimeFeatures()
        self.inner = nn.Linear(self.time.features + context_dim, modulation)
        self.outer = nn.Linear(modulation, 2 * units + 2 * second + 2 * dim)
        self._start_modulation()

    def _start_modulation(self) -> None:
        """Gates start at one, skips at zero, shifts of the first layer spread over a period."""
        units, second = self.hidden
        with torch.no_grad():
            self.outer.weight.mul_(0.5)
            self.outer.bias.zero_()
            self.outer.bias[: units + second] = 1.0
            self.outer.bias[units + second : 2 * units + second].normal_(std=math.pi)
            self.outer.weight[-2 * self.dim :].zero_()

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity (*batch, dim) at times t () or (*batch,) and states x (*batch, dim)."""
        return self.bind(context).velocity(t, x)

    def bind(self, context: Tensor | None = None) -> BoundField:
        """The field for one context, with tanh(z) = 2 sigmoid(2z) − 1 folded into the weights.

        The sigmoid is the faster of the two on a CPU, and its derivative takes no further activation.
        """
        folded = self._fold()
        activate = _sine if self.first == "sine" else _sigmoid

        def hidden(t: Tensor, x: Tensor) -> tuple[Tensor, ...]:
            g1, g2, c1, c2, offset, skip = self._modulate(t, context)
            z1 = _gated(x, folded.W1, g1, folded.stretch * c1)
            a1, slope1 = activate(z1)
            a2, slope2 = _sigmoid(_gated(a1, folded.W2, g2, 2 * c2 - g2 * folded.W2_shift))
            v = torch.addcmul(_affine(a2, folded.W3, offset - folded.W3_shift), skip, x)
            return v, slope1, slope2, g1, g2, skip

        def velocity(t: Tensor, x: Tensor) -> Tensor:
            return hidden(t, x)[0]

        def velocity_and_divergence(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            v, slope1, slope2, g1, g2, skip = hidden(t, x)
            if g1.dim() == 1:
                inner = slope1() @ (g1[:, None] * folded.coupling * g2)
            else:
                inner = ((g1 * slope1()) @ folded.coupling) * g2
            return v, (inner * slope2()).sum(-1) + skip.sum(-1)

        modulation = (*self.inner.parameters(), *self.outer.parameters())
        given = () if context is None else (context,)
        return BoundField(velocity, velocity_and_divergence, (*folded.tensors(), *modulation, *given))

    def _fold(self) -> _Folded:
        """Weights for sigmoids in place of tanh; a layer fed by 2 sigmoid − 1 passes the −1 on as a shift."""
        coupling = self.W2.T * (self.W1 @ self.W3)
        W3, W3_shift = 2 * self.W3, self.W3.sum(1)
        if self.first == "sine":
            none = self.W2.new_zeros(len(self.W2))
            return _Folded(1 * self.W1, 2 * self.W2, none, W3, W3_shift, 4 * coupling, stretch=1)
        return _Folded(2 * self.W1, 4 * self.W2, 2 * self.W2.sum(1), W3, W3_shift, 16 * coupling, stretch=2)

    def _modulate(self, t: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """Gates, shifts, offset and skip, each (width,) or (*batch, width)."""
        features = self.time(t)
        if context is not None:
            shape = torch.broadcast_shapes(features.shape[:-1], context.shape[:-1])
            features = torch.cat([features.expand(*shape, -1), context.expand(*shape, -1)], -1)
        first, second = self.hidden
        widths = (first, second, first, second, self.dim, self.dim)
        return self.outer(torch.tanh(self.inner(features))).split(widths, -1)


@dataclass(frozen=True)
class _Folded:
    """What one solve reads of a `GatedField`."""

    W1: Tensor
    W2: Tensor
    W2_shift: Tensor
    W3: Tensor
    W3_shift: Tensor
    coupling: Tensor
    stretch: int

    def tensors(self) -> tuple[Tensor, ...]:
        return self.W1, self.W2, self.W2_shift, self.W3, self.W3_shift, self.coupling


def _sine(z: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    """sin z, and its derivative for whoever asks."""
    return torch.sin(z), lambda: torch.cos(z)


def _sigmoid(z: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    """sigmoid z, and its derivative for whoever asks."""
    a = torch.sigmoid(z)
    return a, lambda: a - a * a


def _gated(x: Tensor, weight: Tensor, gate: Tensor, shift: Tensor) -> Tensor:
    """gate ⊙ (weight x) + shift; a gate shared by the rows goes into the weights."""
    if gate.dim() == 1:
        return _affine(x, gate[:, None] * weight, shift)
    return torch.addcmul(shift, gate, x @ weight.T)


def _affine(x: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    """weight x + shift, with a shift shared by the rows or one for each."""
    if shift.dim() == 1:
        return nn.functional.linear(x, weight, shift)
    return x @ weight.T + shift
