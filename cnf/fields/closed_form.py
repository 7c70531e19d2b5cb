"""Two hidden layers whose divergence is one more matrix product."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from cnf.fields.backward import Unit, narrow_product, recorded_layers, sigmoid_slope
from cnf.fields.modulation import Modulation
from cnf.functional import recorded, transformed

Activation = Literal["sine", "tanh"]


class TwoLayers:
    """v = W₃ tanh(z₂) + b + s ⊙ x, z₂ = g₂ ⊙ (W₂ σ(z₁)) + c₂, z₁ = g₁ ⊙ (W₁x) + c₁, with its
    divergence.

    With δ₁ = g₁ ⊙ σ′(z₁), δ₂ = g₂ ⊙ tanh′(z₂) and M = W₂ᵀ ∘ (W₁W₃), the same for every row,

        tr ∂v/∂x = δ₁ᵀ M δ₂ + Σ s.

    tanh z = 2 sigmoid(2z) − 1 is folded into the weights: on a CPU the sigmoid is several times as
    fast as tanh. A layer fed by 2 sigmoid − 1 gets the −1 as a shift. The attributes, and the
    modulation and shifts of the layers made from them, are the folded ones.

    Args:
        W1: (hidden1, dim)
        W2: (hidden2, hidden1)
        W3: (dim, hidden2)
        first: σ, "sine" or "tanh".
    """

    def __init__(self, W1: Tensor, W2: Tensor, W3: Tensor, first: Activation) -> None:
        self.unit: Unit = "sine" if first == "sine" else "sigmoid"
        # Nodes of their own in the graph: gradients of a solve stop here, and do not pass through
        # M to them.
        self.W1, self.W2, self.W3 = self.stretch * W1, 2 * self.stretch * W2, 2 * W3
        self.W2_sums, self.W3_sums = 2 * W2.sum(1), W3.sum(1)
        self.M = self._trace_matrix(W1, (2 * self.stretch) ** 2 * W2, W3)

    @property
    def stretch(self) -> int:
        """What the first layer is stretched by."""
        return 1 if self.unit == "sine" else 2

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Everything prepared from the weights."""
        return self.W1, self.W2, self.W3, self.W2_sums, self.W3_sums, self.M

    def shared(self, modulation: Modulation) -> list[SharedLayers]:
        """The layers under each of n modulations (n, width), every one of them shared by all rows.

        Gates and shifts go into the weights, for all n at once.
        """
        modulation = self._folded(modulation)
        gate1, gate2, skip = modulation.gate1, modulation.gate2, modulation.skip
        count = len(modulation.shift1)
        parts = (
            [self.W1] * count if gate1 is None else (gate1[:, :, None] * self.W1).unbind(),
            modulation.shift1.unbind(),
            [self.W2] * count if gate2 is None else (gate2[:, :, None] * self.W2).unbind(),
            modulation.shift2.expand(count, -1).unbind(),
            modulation.offset.expand(count, -1).unbind(),
            [None] * count if skip is None else skip.unbind(),
        )
        couplings = Couplings(self.M, gate1, gate2, count)
        return [SharedLayers(self, couplings, *part) for part in zip(range(count), *parts)]

    def by_row(self, modulation: Modulation) -> LayersByRow:
        """The layers under a modulation (*batch, width) of each row."""
        return LayersByRow(self, self._folded(modulation))

    def _folded(self, modulation: Modulation) -> Modulation:
        """The same, for layers of sigmoids in place of tanh."""
        shift1, shift2, gate2 = modulation.shift1, 2 * modulation.shift2, modulation.gate2
        if self.unit == "sigmoid":
            shift1 = 2 * shift1
            shift2 = shift2 - (self.W2_sums if gate2 is None else gate2 * self.W2_sums)
        return replace(
            modulation, shift1=shift1, shift2=shift2, offset=modulation.offset - self.W3_sums
        )

    def _trace_matrix(self, W1: Tensor, W2: Tensor, W3: Tensor) -> Tensor:
        return W2.T * (W1 @ W3)


class Couplings:
    """M with the gates of each of some moments in it, g₁ ⊙ M ⊙ g₂ᵀ; made for all at once when the
    first is
    asked for: velocities alone need none.

    Args:
        M: (hidden1, hidden2)
        gate1: (count, hidden1), or None for one.
        gate2: (count, hidden2), or None for one.
        count: number of moments.
    """

    def __init__(self, M: Tensor, gate1: Tensor | None, gate2: Tensor | None, count: int) -> None:
        self.M, self.gate1, self.gate2, self.count = M, gate1, gate2, count
        # With a graph and without, by whether gradients are recorded.
        self.made: dict[bool, Sequence[Tensor]] = {}

    def __getitem__(self, which: int) -> Tensor:
        kept = recorded()
        if kept not in self.made:
            M = self.M if self.gate1 is None else self.gate1[:, :, None] * self.M
            M = M if self.gate2 is None else M * self.gate2[:, None, :]
            self.made[kept] = M.expand(self.count, -1, -1).unbind()
        return self.made[kept][which]


class Layers(ABC):
    """The layers at one time."""

    layers: TwoLayers

    def velocity(self, x: Tensor) -> Tensor:
        """v (*batch, dim) at x (*batch, dim)."""
        return self._out(self._second(self._activate(self._first(x))), x)

    def velocity_and_divergence(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """v (*batch, dim) and tr ∂v/∂x (*batch,) at x (*batch, dim)."""
        return self.velocity_and_partial_divergence(x, ())

    def velocity_and_partial_divergence(
        self, x: Tensor, without: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """v at x, and tr ∂v/∂x less uᵀ(∂v/∂x − diag s)u for each of some directions u (*batch,
        dim): δ₁ᵀ M δ₂ − Σᵤ (W₂(δ₁ ⊙ W₁u) ⊙ W₃ᵀu)ᵀ δ₂, one more product of two matrices each."""
        z1 = self._first(x)
        a1 = self._activate(z1)
        a2 = self._second(a1)
        v = self._out(a2, x)
        # Slopes take the place of what has been used for the last time: fresh memory is dear.
        slope1 = _cosine(z1) if self.layers.unit == "sine" else _slope(a1)
        inner = self._couple(slope1)
        for u in without:
            moved = self._first_along(u)
            moved = self._second_along(moved * slope1 if recorded() else moved.mul_(slope1))
            inner = _less_product(inner, moved, u @ self.layers.W3)
        slope2 = _slope(a2)
        divergence = (inner * slope2 if recorded() else inner.mul_(slope2)).sum(-1)
        return v, divergence + self._trace_of_skip()

    def _activate(self, z1: Tensor) -> Tensor:
        return torch.sin(z1) if self.layers.unit == "sine" else _sigmoid(z1)

    @abstractmethod
    def _first(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _first_along(self, u: Tensor) -> Tensor:
        """What `_first` changes by in the direction u (*batch, dim)."""

    @abstractmethod
    def _second(self, a1: Tensor) -> Tensor: ...

    @abstractmethod
    def _second_along(self, u: Tensor) -> Tensor:
        """What the second layer's input changes by in the direction u (*batch, hidden1)."""

    @abstractmethod
    def _out(self, a2: Tensor, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _couple(self, slope1: Tensor) -> Tensor:
        """(δ₁ᵀ M) ⊙ g₂, of sigmoids."""

    @abstractmethod
    def _trace_of_skip(self) -> Tensor | float: ...


@dataclass
class SharedLayers(Layers):
    """Layers whose modulation is the same for all rows and stands in their weights."""

    layers: TwoLayers
    couplings: Couplings
    which: int
    W1: Tensor
    shift1: Tensor
    W2: Tensor
    shift2: Tensor
    offset: Tensor
    skip: Tensor | None

    def velocity_and_divergence(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """v (*batch, dim) and tr ∂v/∂x (*batch,) at x (*batch, dim)."""
        if not torch.is_grad_enabled() or transformed():
            return super().velocity_and_divergence(x)
        coupling = self.couplings[self.which]
        weights = (
            self.W1,
            self.shift1,
            self.W2,
            self.shift2,
            self.layers.W3,
            self.offset,
            coupling,
        )
        v, divergence = recorded_layers(self.layers.unit, x.reshape(-1, x.shape[-1]), *weights)
        v, divergence = v.view_as(x), divergence.view(x.shape[:-1])
        return self._skipped(v, x), divergence + self._trace_of_skip()

    def _first(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.W1, self.shift1)

    def _first_along(self, u: Tensor) -> Tensor:
        return nn.functional.linear(u, self.W1)

    def _second(self, a1: Tensor) -> Tensor:
        return _sigmoid(nn.functional.linear(a1, self.W2, self.shift2))

    def _second_along(self, u: Tensor) -> Tensor:
        return nn.functional.linear(u, self.W2)

    def _out(self, a2: Tensor, x: Tensor) -> Tensor:
        # The product lies in memory by columns. Where what comes first has rows, the sum lies by
        # rows.
        offset = self.offset if self.skip is None else torch.addcmul(self.offset, self.skip, x)
        return offset + narrow_product(a2, self.layers.W3)

    def _skipped(self, v: Tensor, x: Tensor) -> Tensor:
        return v if self.skip is None else torch.addcmul(v, self.skip, x)

    def _couple(self, slope1: Tensor) -> Tensor:
        return slope1 @ self.couplings[self.which]

    def _trace_of_skip(self) -> Tensor | float:
        return 0.0 if self.skip is None else self.skip.sum()


@dataclass
class LayersByRow(Layers):
    """Layers with a modulation for each row, or each group of rows."""

    layers: TwoLayers
    modulation: Modulation

    def _first(self, x: Tensor) -> Tensor:
        # A copy, for the sake of its gradient, which is then a product whose narrow side comes
        # first.
        W1 = self.layers.W1.T.contiguous()
        return _gated(x @ W1, self.modulation.gate1, self.modulation.shift1)

    def _first_along(self, u: Tensor) -> Tensor:
        moved = u @ self.layers.W1.T
        return moved if self.modulation.gate1 is None else self.modulation.gate1 * moved

    def _second(self, a1: Tensor) -> Tensor:
        return _sigmoid(
            _gated(a1 @ self.layers.W2.T, self.modulation.gate2, self.modulation.shift2)
        )

    def _second_along(self, u: Tensor) -> Tensor:
        moved = u @ self.layers.W2.T
        return moved if self.modulation.gate2 is None else self.modulation.gate2 * moved

    def _out(self, a2: Tensor, x: Tensor) -> Tensor:
        v = self.modulation.offset + narrow_product(a2, self.layers.W3)
        return v if self.modulation.skip is None else torch.addcmul(v, self.modulation.skip, x)

    def _couple(self, slope1: Tensor) -> Tensor:
        gate1, gate2 = self.modulation.gate1, self.modulation.gate2
        inner = self._times_M(slope1 if gate1 is None else gate1 * slope1)
        return inner if gate2 is None else inner * gate2

    def _times_M(self, rows: Tensor) -> Tensor:
        """The product of each row (*batch, hidden1) and M."""
        return rows @ self.layers.M

    def _trace_of_skip(self) -> Tensor | float:
        return 0.0 if self.modulation.skip is None else self.modulation.skip.sum(-1)


def _sigmoid(z: Tensor) -> Tensor:
    """sigmoid z, in place where no gradient is asked."""
    return torch.sigmoid(z) if z.requires_grad or transformed() else z.sigmoid_()


def _slope(a: Tensor) -> Tensor:
    """The derivative of the sigmoid where its value is a, in its place where nothing is
    recorded."""
    return sigmoid_slope(a) if recorded() else sigmoid_slope(a, out=a)


def _less_product(whole: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """whole − a ⊙ b, in the place of `whole` where nothing is recorded."""
    return torch.addcmul(whole, a, b, value=-1, out=None if recorded() else whole)


def _cosine(z: Tensor) -> Tensor:
    """cos z, in its place where nothing is recorded."""
    return torch.cos(z) if recorded() else z.cos_()


def _gated(z: Tensor, gate: Tensor | None, shift: Tensor) -> Tensor:
    """gate ⊙ z + shift"""
    return z + shift if gate is None else torch.addcmul(shift, gate, z)
