"""General networks: their divergence comes from automatic differentiation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cnf.fields.base import TimeFeatures, VelocityField

# Smooth only: a kink in the velocity lowers a fifth-order solver to order one or two.
ACTIVATIONS = {"tanh": torch.tanh, "silu": nn.functional.silu, "softplus": nn.functional.softplus}


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
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(widths, widths[1:]))

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity (*batch, dim) at times t () or (*batch,) and states x (*batch, dim)."""
        inputs = [x, self.time(t), *(() if context is None else (context,))]
        shape = torch.broadcast_shapes(*(part.shape[:-1] for part in inputs))
        h = torch.cat([part.expand(*shape, -1) for part in inputs], -1)
        for layer in self.layers[:-1]:
            h = ACTIVATIONS[self.activation](layer(h))
        return self.layers[-1](h)


class ConcatSquashField(VelocityField):
    """The concat-squash network of FFJORD (Grathwohl et al. 2019).

    Each layer is (W h + b) ⊙ sigmoid(U (t, context) + a) + V (t, context), with the activation between.

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
        self, dim: int, hidden: Sequence[int] = (64, 64), *, context_dim: int = 0, activation: str = "tanh"
    ) -> None:
        super().__init__(dim, context_dim)
        self.hidden, self.activation = _checked(hidden, activation)
        widths = (dim, *hidden, dim)
        pairs = list(zip(widths, widths[1:]))
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairs)
        self.gates = nn.ModuleList(nn.Linear(1 + context_dim, o) for _, o in pairs)
        self.shifts = nn.ModuleList(nn.Linear(1 + context_dim, o, bias=False) for _, o in pairs)

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity (*batch, dim) at times t () or (*batch,) and states x (*batch, dim)."""
        condition = t[..., None]
        if context is not None:
            shape = torch.broadcast_shapes(condition.shape[:-1], context.shape[:-1])
            condition = torch.cat([condition.expand(*shape, -1), context.expand(*shape, -1)], -1)
        h = x
        for k, (layer, gate, shift) in enumerate(zip(self.layers, self.gates, self.shifts)):
            h = layer(h) * torch.sigmoid(gate(condition)) + shift(condition)
            if k + 1 < len(self.layers):
                h = ACTIVATIONS[self.activation](h)
        return h


def _checked(hidden: Sequence[int], activation: str) -> tuple[tuple[int, ...], str]:
    if len(hidden) < 1 or min(hidden) < 1:
        raise ValueError(f"hidden: expected one or more positive widths; got {tuple(hidden)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}; got {activation!r}")
    return tuple(hidden), activation
