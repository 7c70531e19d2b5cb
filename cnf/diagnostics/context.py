"""The data of the checks: a flow, held-out rows, samples, and the log-densities of both."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cnf.flows import CNF, BoundFlow, Evaluation
from cnf.ode import Solver
from cnf.rows import Rows

# Rows for checks of fit, and for numerical ones, where each row is a test of its own.
MOST_ROWS, FEW_ROWS = 2000, 256
SAMPLES, SAMPLES_A_CONTEXT = 16_384, 64


@dataclass(frozen=True)
class CheckContext:
    """The data of a check.

    Args:
        flow: in eval mode; no check changes it.
        rows: held-out rows with their context, in random order.
        seed: of everything random in the checks.
        strict: whether the stricter limits apply.
        names: of the columns; by default, columns are counted from 0.
    """

    flow: CNF
    rows: Rows
    seed: int
    strict: bool
    names: tuple[str, ...] = ()

    def name(self, column: int) -> str:
        """A column in words."""
        return repr(self.names[column]) if self.names else f"column {column}, from 0"

    def limit(self, usual: float, strict: float) -> float:
        """The limit that applies."""
        return strict if self.strict else usual

    def generator(self, stream: int = 0) -> torch.Generator:
        """A new generator; each check has its own stream, so that checks do not depend on each
        other."""
        return torch.Generator(self.flow.device).manual_seed(self.seed + 7919 * stream)

    def first(self, count: int) -> Rows:
        """The first `count` rows, or all if there are fewer."""
        return self.rows.take(torch.arange(min(count, len(self.rows)), device=self.rows.x.device))

    @cached_property
    def few(self) -> Rows:
        """The rows for numerical checks."""
        return self.first(FEW_ROWS)

    @cached_property
    def exact(self) -> CNF:
        """The flow in float64."""
        return copy.deepcopy(self.flow).double()

    @cached_property
    def scored(self) -> Evaluation:
        """The result of `evaluate` for all rows."""
        with torch.no_grad():
            return self.flow.evaluate(self.rows.x, self.rows.context)

    @cached_property
    def answered(self) -> Rows:
        """Those of `few` whose error bound is within the tolerance. No claim is made about the
        others, and their solves could take long."""
        return self.few.take(self.scored.ok[: len(self.few)].nonzero().squeeze(-1))

    @cached_property
    def drawn(self) -> tuple[Tensor, Tensor]:
        """Samples (samples, rows or 1, dim) under the context of each row, if there is one, and
        their log_prob without refinement (samples, rows or 1)."""
        count = SAMPLES if self.rows.context is None else SAMPLES_A_CONTEXT
        context = None if self.rows.context is None else self.rows.context[:FEW_ROWS]
        with torch.no_grad():
            x = self.exact.sample((count,), context, generator=self.generator(1))
            x = x[:, None] if context is None else x
            return x, at_first_look(self.flow, context).evaluate(x).log_prob

    @cached_property
    def compared(self) -> Rows:
        """The rows whose context `drawn` was sampled under."""
        return self.rows if self.rows.context is None else self.few

    def start_points(self, flow: CNF, rows: Rows) -> Tensor:
        """The positions of the rows at t = 0, (rows, dim)."""
        with torch.no_grad():
            bound = flow.bind(rows.context, solver=flow.solver)
            return bound.trajectory(rows.x, [0.0], reverse=True)[0]


def at_first_look(flow: CNF, context: Tensor | None, solver: Solver | None = None) -> BoundFlow:
    """The flow with one solve per row, on the same grid for all rows, so that scores are smooth
    functions; re-solves would cost more than everything else."""
    return flow.bind(context, solver=solver, tolerance=math.inf)


def given(bound: BoundFlow, points: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The context and the mask of points (*batch, coordinates)."""
    if bound.context is None:
        return None, None
    context = bound.context.expand(*points.shape[:-1], -1)
    return context, bound.flow.field.mask(context)


def jacobian(image: Callable[[Tensor], Tensor], y: Tensor, step: float) -> Tensor:
    """∂image/∂y transposed (rows, dim, dim) at y (rows, dim), by central differences.

    `image` is called with points (moves, rows, dim): what belongs to a row, such as its context,
    broadcasts.

    >>> jacobian(lambda y: 3 * y, torch.zeros(1, 2), 1e-2).round()
    tensor([[[3., 0.],
             [0., 3.]]])
    """
    moves = step * torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)[:, None]
    up, down = image(torch.cat([y + moves, y - moves])).chunk(2)
    return ((up - down) / (2 * step)).transpose(0, 1)
