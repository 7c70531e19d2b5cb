"""The steps of a solve as one loop, which `torch.export` can export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan


def scanned(
    step: Callable[[Tensor, Tensor, tuple[Tensor, ...]], Any],
    x: Tensor,
    coefficients: Tensor,
    carry: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The last state (*batch, dim), and what each step added, as `stepping.Steps` has it.

    A step is exported once, for any number of steps. The loop does not allow one tensor for two of
    its values, so the carry is copied.

    Args:
        step: makes a `stepping.Step` of a state, its coefficients and what it is handed.
        x: state at the start (*batch, dim).
        coefficients: of each step (steps, numbers).
        carry: the carry of the first step.
    """

    def body(before: tuple[Tensor, ...], one: Tensor) -> tuple[Any, Any]:
        x, *carry = before
        made = step(x, one, tuple(carry))
        errors = torch.linalg.vector_norm(made.x_error, dim=-1), made.q_error.abs()
        return (made.x.clone(), *_copies(made.carry)), (made.q.clone(), *errors)

    (end, *_), (q, x_error, q_error) = scan(body, (x, *_copies(carry)), coefficients)
    return end, q, x_error, q_error


def _copies(parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(part.clone() for part in parts)
