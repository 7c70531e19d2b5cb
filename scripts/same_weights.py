"""The same velocity in every library: peers that use the weights of a trained flow."""

from __future__ import annotations

from functools import partial

import torch
import zuko
from torch import Tensor, nn
from torchdiffeq import odeint

import cnf
from cnf.flows.divergence import exact_divergence
from cnf.ode import System


def fold_linear_time(flow: cnf.CNF) -> cnf.CNF:
    """Drop the feature 2t − 1, which the peer's network lacks, from the first layer."""
    with torch.no_grad():
        flow.field.layers[0].weight[:, flow.dim] = 0
    return flow


def to_zuko(flow: cnf.CNF, **tolerances: float) -> zuko.flows.CNF:
    """zuko's flow with the same velocity: its time runs from data to base, so v(t) becomes −v(1 −
    t)."""
    dim = flow.dim
    peer = zuko.flows.CNF(dim, hidden_features=flow.field.hidden, activation=nn.Tanh, **tolerances)
    first, second, last = flow.field.layers
    ours = first.weight.detach()
    # cos πk(1 − t) = (−1)ᵏ cos πkt and sin πk(1 − t) = −(−1)ᵏ sin πkt
    signs = torch.tensor([-1.0, 1.0, -1.0])
    cosines, sines = ours[:, dim + 1 : dim + 4] * signs, -ours[:, dim + 4 :] * signs
    layers = [layer for layer in peer.modules() if isinstance(layer, zuko.nn.Linear)]
    with torch.no_grad():
        layers[0].weight.copy_(torch.cat([cosines, sines, ours[:, :dim]], 1))
        layers[0].bias.copy_(first.bias)
        layers[1].weight.copy_(second.weight)
        layers[1].bias.copy_(second.bias)
        layers[2].weight.copy_(-last.weight)
        layers[2].bias.copy_(-last.bias)
    return peer


def ffjord_log_prob(flow: cnf.CNF, x: Tensor) -> Tensor:
    """FFJORD's way: torchdiffeq's dopri5 with the trace by one vector-Jacobian product a
    column."""

    def derivative(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            at = state[0].detach().requires_grad_()
            v = flow.field(t, at)
            columns = range(flow.dim)
            parts = [
                torch.autograd.grad(v[:, k].sum(), at, retain_graph=True)[0][:, k] for k in columns
            ]
        return v.detach(), sum(parts)

    times = torch.tensor([1.0, 0.0], dtype=x.dtype)
    z, ladj = odeint(
        derivative, (x, x.new_zeros(len(x))), times, rtol=1e-5, atol=1e-5, method="dopri5"
    )
    return flow.base.log_prob(z[-1]) + ladj[-1]


def autograd_adjoint(flow: cnf.CNF, x: Tensor) -> Tensor:
    """log p by torchdiffeq's continuous adjoint with the exact trace by automatic
    differentiation."""

    def with_trace(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        v, divergence = exact_divergence(partial(flow.field, t), x)
        return v, divergence[:, None]

    system = System.of(flow.field, with_trace, tuple(flow.field.parameters()))
    times = torch.tensor([1.0, 0.0])
    solution = cnf.Torchdiffeq("dopri5", rtol=1e-5, atol=1e-5).solve(
        system, x, times, gradient="adjoint"
    )
    return flow.base.log_prob(solution.x[-1]) + solution.q[-1, :, 0]
