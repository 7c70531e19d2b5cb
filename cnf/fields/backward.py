"""The layers of `cnf.fields.closed_form` with their backward pass written out."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import linear

from cnf.precision import backward_outside_autocast

Unit = Literal["sine", "sigmoid"]


def recorded_layers(first: Unit, x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
    """v = W₃ sigmoid(z₂) + b₃ (rows, dim) and δ₁ᵀ M δ₂ (rows,) with z₂ = W₂ σ(z₁) + b₂ and z₁ =
    W₁x + b₁, for backpropagation.

    σ″ of a sine is what σ gave, and that of a sigmoid is made from it: the backward pass needs no
    activation again. It may itself be differentiated.

    Args:
        first: σ, "sine" or "sigmoid".
        x: (rows, dim)
        weights: W₁, b₁, W₂, b₂, W₃, b₃ and M.
    """
    return _Layers.apply(first, x, *weights)


def plain_layers(
    first: Unit,
    x: Tensor,
    W1: Tensor,
    b1: Tensor,
    W2: Tensor,
    b2: Tensor,
    W3: Tensor,
    b3: Tensor,
    M: Tensor,
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Velocity and divergence, and σ(z₁), δ₁, sigmoid(z₂), δ₂ and δ₁ᵀM on the way."""
    z1 = linear(x, W1, b1)
    a1 = torch.sin(z1) if first == "sine" else torch.sigmoid(z1)
    slope1 = torch.cos(z1) if first == "sine" else sigmoid_slope(a1)
    a2 = torch.sigmoid(linear(a1, W2, b2))
    slope2 = sigmoid_slope(a2)
    inner = slope1 @ M
    return b3 + narrow_product(a2, W3), (inner * slope2).sum(-1), (a1, slope1, a2, slope2, inner)


def narrow_product(a: Tensor, W: Tensor) -> Tensor:
    """a Wᵀ (…, few) of a (…, many) and W (few, many).

    The factors are turned: a product whose narrow side comes first is the faster one.
    """
    rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
    return (W @ rows.T).T.reshape(*a.shape[:-1], len(W))


def sigmoid_slope(a: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The derivative of the sigmoid where its value is a; in `out`, if given."""
    return torch.addcmul(a, a, a, value=-1, out=out)


class _Layers(torch.autograd.Function):
    """`plain_layers` with its backward pass."""

    @staticmethod
    def forward(ctx: Any, first: Unit, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        v, divergence, inside = plain_layers(first, *inputs)
        ctx.first, ctx.inputs = first, len(inputs)
        ctx.save_for_backward(*inputs, *inside)
        return v, divergence

    @staticmethod
    @backward_outside_autocast
    def backward(ctx: Any, to_v: Tensor, to_divergence: Tensor) -> tuple[Tensor | None, ...]:
        inputs, inside = ctx.saved_tensors[: ctx.inputs], ctx.saved_tensors[ctx.inputs :]
        if torch.is_grad_enabled():
            return _differentiable(ctx, inputs, to_v, to_divergence)
        x, W1, _, W2, _, W3, _, M = inputs
        a1, slope1, a2, slope2, inner = inside
        to_divergence = to_divergence[:, None]
        to_inner = to_divergence * slope2
        to_slope2 = inner.mul(to_divergence)
        # sigmoid″ = sigmoid′ (1 − 2 sigmoid)
        to_z2 = (to_v @ W3).add_(to_slope2).addcmul_(to_slope2, a2, value=-2).mul_(slope2)
        to_slope1, to_a1 = to_inner @ M.T, to_z2 @ W2
        if ctx.first == "sine":
            to_z1 = to_a1.mul_(slope1).addcmul_(to_slope1, a1, value=-1)
        else:
            to_z1 = to_a1.add_(to_slope1).addcmul_(to_slope1, a1, value=-2).mul_(slope1)
        return (
            None,
            narrow_product(to_z1, W1.T) if ctx.needs_input_grad[1] else None,
            narrow_product(to_z1.T, x.T), to_z1.sum(0), to_z2.T @ a1, to_z2.sum(0), to_v.T @ a2, to_v.sum(0),
            slope1.T @ to_inner,
        )  # fmt: skip


def _differentiable(
    ctx: Any, inputs: tuple[Tensor, ...], to_v: Tensor, to_divergence: Tensor
) -> tuple[Tensor | None, ...]:
    """The same cotangents as a differentiable function of everything.

    The inputs are nodes of their own: those of a later step depend on the weights through the
    steps before it, which are not this step's to differentiate.
    """
    inputs = tuple(tensor.view_as(tensor) for tensor in inputs)
    v, divergence, _ = plain_layers(ctx.first, *inputs)
    sought = [tensor for tensor, needed in zip(inputs, ctx.needs_input_grad[1:]) if needed]
    found = iter(
        torch.autograd.grad((v, divergence), sought, (to_v, to_divergence), create_graph=True)
    )
    return None, *(next(found) if needed else None for needed in ctx.needs_input_grad[1:])
