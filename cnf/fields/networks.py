"""General networks, whose divergence comes from automatic differentiation, with one exception."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from cnf.fields.activations import tanh
from cnf.fields.base import BoundField, TimeFeatures, VelocityField, with_context
from cnf.fields.binding import bind_layers
from cnf.fields.closed_form import TwoLayers
from cnf.fields.modulation import Modulation
from cnf.inputs import as_widths
from cnf.registry import register

# Smooth only: a kink in the velocity lowers a fifth-order solver to order one or two.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": tanh,
    "silu": nn.functional.silu,
    "softplus": nn.functional.softplus,
}


@register
class MLPField(VelocityField):
    """A multilayer perceptron on (x, features of t, context).

    Args:
        dim: number of columns of x.
        hidden: widths of the hidden layers, one or more.
        context_dim: number of columns of the context.
        activation: "tanh", "silu" or "softplus".

    Raises:
        ValueError: for an unknown activation or no hidden layer.

    Example:
        >>> MLPField(2, hidden=(32, 32))(torch.tensor(0.5), torch.zeros(10, 2)).shape
        torch.Size([10, 2])
    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int] = (64, 64, 64),
        *,
        context_dim: int = 0,
        activation: str = "tanh",
    ) -> None:
        super().__init__(dim, context_dim)
        self.hidden, self.activation = _checked(hidden, activation)
        self.time = TimeFeatures()
        widths = (dim + self.time.features + context_dim, *hidden, dim)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity (*batch, dim) at times t () or (*batch,) and states x (*batch, dim)."""
        h = with_context(x, with_context(self.time(t), context))
        for layer in self.layers[:-1]:
            h = ACTIVATIONS[self.activation](layer(h))
        return self.layers[-1](h)

    def bind(self, context: Tensor | None = None) -> BoundField:
        """The field for one context; with two hidden tanh layers, its divergence has a closed
        form."""
        if len(self.hidden) != 2 or self.activation != "tanh":
            return super().bind(context)
        W1, b1, W2, b2, W3, b3 = self.layers.parameters()
        W1_condition = W1[:, self.dim :]
        layers = TwoLayers(W1[:, : self.dim], W2, W3, "tanh")

        def modulate(t: Tensor, context: Tensor | None) -> Modulation:
            condition = with_context(self.time(t), context)
            shift = nn.functional.linear(condition, W1_condition, b1)
            return Modulation(shift, b2, b3)

        return bind_layers(layers, modulate, context, (W1_condition, b1, b2, b3))


@register
class ConcatSquashField(VelocityField):
    """The concat-squash network of FFJORD (Grathwohl et al. 2019).

    Each layer is (W h + b) ⊙ sigmoid(U (t, context) + a) + V (t, context), with the activation
    between.

    Args:
        dim: number of columns of x.
        hidden: widths of the hidden layers, one or more.
        context_dim: number of columns of the context.
        activation: "tanh", "silu" or "softplus".

    Raises:
        ValueError: for an unknown activation or no hidden layer.

    Example:
        >>> ConcatSquashField(2, hidden=(32, 32))(torch.tensor(0.5), torch.zeros(10, 2)).shape
        torch.Size([10, 2])
    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int] = (64, 64),
        *,
        context_dim: int = 0,
        activation: str = "tanh",
    ) -> None:
        super().__init__(dim, context_dim)
        self.hidden, self.activation = _checked(hidden, activation)
        widths = (dim, *hidden, dim)
        pairs = list(pairwise(widths))
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairs)
        self.gates = nn.ModuleList(nn.Linear(1 + context_dim, o) for _, o in pairs)
        self.shifts = nn.ModuleList(nn.Linear(1 + context_dim, o, bias=False) for _, o in pairs)

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity (*batch, dim) at times t () or (*batch,) and states x (*batch, dim)."""
        condition = with_context(t[..., None], context)
        h = x
        for k, (layer, gate, shift) in enumerate(zip(self.layers, self.gates, self.shifts)):
            h = layer(h) * torch.sigmoid(gate(condition)) + shift(condition)
            if k + 1 < len(self.layers):
                h = ACTIVATIONS[self.activation](h)
        return h


def _checked(hidden: Sequence[int], activation: str) -> tuple[tuple[int, ...], str]:
    widths = as_widths(hidden)
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"activation: expected one of {', '.join(ACTIVATIONS)}; got {activation!r}"
        )
    return widths, activation
