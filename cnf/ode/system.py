"""The systems and solutions of solves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

Gradient = Literal["direct", "discrete", "adjoint"]


def check_gradient(gradient: str) -> None:
    """Raise ValueError for a kind of gradient that does not exist."""
    if gradient not in get_args(Gradient):
        raise ValueError(f"gradient: expected {', '.join(get_args(Gradient))}; got {gradient!r}")


class SolverError(RuntimeError, ValueError):
    """A solve that could not be finished: step underflow, or more evaluations than allowed.

    A ValueError too: other tolerances or a higher cap mend it.
    """


def tensor_like(values: Any, like: Tensor) -> Tensor:
    """A tensor of numbers with the dtype and on the device of `like`; the host does not wait for
    it."""
    return torch.as_tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)


def no_rates(x: Tensor) -> Tensor:
    """The quadratures (*batch, 0) of a system without any; not a view, which would keep x in
    memory."""
    return x.new_empty((*x.shape[:-1], 0))


class SystemAt(NamedTuple):
    """A system at one time: functions of x (*batch, dim) alone.

    Attributes:
        velocity: v (*batch, dim).
        velocity_and_rates: v and r (*batch, rates) in one go; None without quadratures.
    """

    velocity: Callable[[Tensor], Tensor]
    velocity_and_rates: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """v and r at x; r has no columns without quadratures."""
        if self.velocity_and_rates is None:
            return self.velocity(x), no_rates(x)
        return self.velocity_and_rates(x)


@dataclass(frozen=True)
class System:
    """A differential equation with quadratures, dx/dt = v(t, x), dq/dt = r(t, x).

    The rates r depend on the state, but nothing depends on q, so solvers may skip rates whose
    weight is zero. The log-density of a flow is such a quadrature.

    Attributes:
        at: the system at times (n,). A step requests the times of all its stages at once, so that
            everything that depends on time alone is computed once.
        tensors: every tensor that v and r depend on and that may want a gradient.
    """

    at: Callable[[Tensor], Sequence[SystemAt]]
    tensors: tuple[Tensor, ...] = ()

    @classmethod
    def of(
        cls,
        velocity: Callable[[Tensor, Tensor], Tensor],
        velocity_and_rates: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
        tensors: Sequence[Tensor] = (),
    ) -> System:
        """The system of functions of t () and x (*batch, dim)."""

        def at(times: Tensor) -> list[SystemAt]:
            rates = velocity_and_rates
            return [
                SystemAt(partial(velocity, t), None if rates is None else partial(rates, t))
                for t in times.unbind()
            ]

        return cls(at, tuple(tensors))


@dataclass(frozen=True)
class Solution:
    """States and quadratures at the requested times, with the price and the error of the solve.

    Attributes:
        x: states (time, *batch, dim).
        q: quadratures (time, *batch, rates), zero at the first time.
        x_error: norm of the embedded estimate of each step's error in x, (steps, *batch).
        q_error: absolute embedded estimate of each step's error in q, (steps, *batch, rates).
            Both have zero steps if the method gives no estimate, or none was requested.
        nfe: evaluations of the velocity for each row.
    """

    x: Tensor
    q: Tensor
    x_error: Tensor
    q_error: Tensor
    nfe: int
