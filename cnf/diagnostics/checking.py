"""The check: every claim in turn."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from cnf.diagnostics.context import MOST_ROWS, CheckContext
from cnf.diagnostics.cost import steps, work
from cnf.diagnostics.fitting import base, columns, overfitting, regions
from cnf.diagnostics.mass import mass
from cnf.diagnostics.numerics import (
    divergence,
    gradients,
    independence,
    own_samples,
    round_trip,
    solver_error,
    volume,
)
from cnf.diagnostics.result import CheckResult
from cnf.diagnostics.two_sample import two_sample
from cnf.flows import CNF
from cnf.ode import SolverError
from cnf.rows import FEWEST_ROWS, Rows, as_rows

Measure = Callable[[CheckContext], Iterable[CheckResult]]
CHECKS: tuple[Measure, ...] = (
    round_trip,
    mass,
    volume,
    own_samples,
    solver_error,
    divergence,
    gradients,
    independence,
    base,
    columns,
    regions,
    two_sample,
    overfitting,
    work,
    steps,
)


def check(
    flow: CNF,
    x: Any,
    *,
    context: Any = None,
    strict: bool = False,
    seed: int = 0,
    watch: Callable[[float], None] = lambda done: None,
) -> tuple[CheckResult, ...]:
    """Every claim that a flow makes, measured on rows it was not fitted to.

    A claim that does not apply is left out: the overfitting of a flow whose history is not known,
    say. One
    that cannot be decided has no verdict: the mass in many columns, where no proposal comes near
    the density.

    Args:
        flow: what is checked; it stays as it is.
        x: rows (rows, dim) in the units of the data; up to 2,000 of them, chosen at random, are
            used.
        context: (rows, context_dim), for a conditional flow.
        strict: hold it to narrower limits.
        seed: of the rows chosen and of everything random in a check.
        watch: told the share of the check that is done.

    Raises:
        ValueError: for rows that do not fit the flow, are not finite, or are fewer than 10.

    Example:
        >>> flow = CNF(dim=1, hidden=(8, 8))
        >>> claims = check(flow, flow.sample((300,), generator=torch.Generator().manual_seed(0)))
        >>> [claim.name for claim in claims if not claim.passed]
        []
    """
    case = CheckContext(_ready(flow), _rows(flow, x, context, seed), seed, strict)
    claims: list[CheckResult] = []
    for k, measure in enumerate(CHECKS):
        watch(k / len(CHECKS))
        claims += measured(measure, case)
    watch(1.0)
    return tuple(claims)


def measured(measure: Measure, case: CheckContext) -> Iterator[CheckResult]:
    """The claims of one check; a solve that cannot be finished is a claim that does not hold."""
    try:
        yield from measure(case)
    except SolverError as failure:
        name = measure.__name__.replace("_", " ")
        claim = "the equation can be solved, so that the rest can be measured"
        yield CheckResult.at_most(name, claim, math.nan, 0.0, detail=str(failure))


def _ready(flow: CNF) -> CNF:
    """A copy in eval mode that wants no gradient of its parameters."""
    return copy.deepcopy(flow).eval().requires_grad_(requires_grad=False)


def _rows(flow: CNF, x: Any, context: Any, seed: int) -> Rows:
    rows = as_rows("x", x, context, None, flow.device)
    if len(rows) < FEWEST_ROWS:
        raise ValueError(f"x: expected at least {FEWEST_ROWS} rows; got {len(rows)}")
    generator = torch.Generator(rows.x.device).manual_seed(seed)
    order = torch.randperm(len(rows), generator=generator, device=rows.x.device)
    none = rows.take(order[:0])
    flow.log_prob(none.x, none.context)  # says what is wrong with columns or context
    if len(outside := flow.preprocess(rows.x)[1].isinf().nonzero()):
        where = f"row {outside[0].item()} lies outside the ranges of the columns"
        raise ValueError(f"{where}, where the density is zero; correct or remove it")
    return rows.take(order[:MOST_ROWS])
