"""What the checks share: a flow, rows it was not fitted to, its samples and scores."""

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

# Rows for statements about fit, and for numerical ones, where each row is a test of its own.
MOST_ROWS, FEW_ROWS = 2000, 256
SAMPLES, SAMPLES_A_CONTEXT = 16_384, 64


@dataclass(frozen=True)
class CheckContext:
    """A flow on trial.

    Args:
        flow: in eval mode; it is looked at, and never changed.
        rows: what it is tried on, with their context.
        seed: of everything random here.
        strict: whether the narrower limits hold.
    """

    flow: CNF
    rows: Rows
    seed: int
    strict: bool

    def limit(self, usual: float, strict: float) -> float:
        """The limit that holds here."""
        return strict if self.strict else usual

    def generator(self, stream: int = 0) -> torch.Generator:
        """A fresh generator; each check has a stream of its own, so that none depends on
        another."""
        return torch.Generator(self.flow.device).manual_seed(self.seed + 7919 * stream)

    def first(self, count: int) -> Rows:
        """So many of the rows, or all; they come in random order."""
        return self.rows.take(torch.arange(min(count, len(self.rows)), device=self.rows.x.device))

    @cached_property
    def few(self) -> Rows:
        """The rows of numerical statements."""
        return self.first(FEW_ROWS)

    @cached_property
    def exact(self) -> CNF:
        """The flow in float64."""
        return copy.deepcopy(self.flow).double()

    @cached_property
    def scored(self) -> Evaluation:
        """What `evaluate` says of all rows."""
        with torch.no_grad():
            return self.flow.evaluate(self.rows.x, self.rows.context)

    @cached_property
    def answered(self) -> Rows:
        """Those of `few` that have a score within the tolerance: the others make no claim, and
        could keep a solver busy for long."""
        return self.few.take(self.scored.ok[: len(self.few)].nonzero().squeeze(-1))

    @cached_property
    def drawn(self) -> tuple[Tensor, Tensor]:
        """Samples (k, rows or 1, dim) and their log_prob at first look (k, rows or 1): for each
        row's context, where there is one."""
        count = SAMPLES if self.rows.context is None else SAMPLES_A_CONTEXT
        context = None if self.rows.context is None else self.rows.context[:FEW_ROWS]
        with torch.no_grad():
            x = self.exact.sample((count,), context, generator=self.generator(1))
            x = x[:, None] if context is None else x
            return x, at_first_look(self.flow, context).evaluate(x).log_prob

    @cached_property
    def compared(self) -> Rows:
        """The rows that `drawn` stands beside."""
        return self.rows if self.rows.context is None else self.few

    def base_points(self, flow: CNF, rows: Rows) -> Tensor:
        """Where rows come from at t = 0, in model coordinates (rows, dim)."""
        with torch.no_grad():
            start = flow.trajectory(rows.x, [0.0], rows.context, reverse=True)[0]
            return flow.to_model_coordinates(start, rows.context)[0]


def at_first_look(flow: CNF, context: Tensor | None, solver: Solver | None = None) -> BoundFlow:
    """The flow with one solve a row, on the same grid for all of them, so that scores are smooth
    functions; re-solves would cost more than all the rest."""
    return flow.bind(context, solver=solver, tolerance=math.inf)


def log_volume(flow: CNF, y: Tensor) -> Tensor:
    """log |det ∂x/∂y| (rows,) of the map from model coordinates y (rows, dim) to data.

    By differences, so that it owes nothing to the Jacobian that the map itself reports.
    """
    return torch.linalg.slogdet(jacobian(flow.preprocess.inverse, y.double(), 1e-4)).logabsdet


def jacobian(image: Callable[[Tensor], Tensor], y: Tensor, step: float) -> Tensor:
    """∂image/∂y transposed (rows, dim, dim) at y (rows, dim), by central differences.

    `image` is given points (moves, rows, dim): what belongs to a row, such as its context,
    broadcasts.

    >>> jacobian(lambda y: 3 * y, torch.zeros(1, 2), 1e-2).round()
    tensor([[[3., 0.],
             [0., 3.]]])
    """
    moves = step * torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)[:, None]
    up, down = image(torch.cat([y + moves, y - moves])).chunk(2)
    return ((up - down) / (2 * step)).transpose(0, 1)
