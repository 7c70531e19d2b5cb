"""The registry of checks, and the loop over them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from cnf.deprecation import renamed_argument
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
from cnf.diagnostics.result import CheckResult, Kind
from cnf.diagnostics.two_sample import two_sample
from cnf.flows import CNF
from cnf.inputs import as_rows, as_seed
from cnf.ode import SolverError
from cnf.plugins import Registry
from cnf.rows import FEWEST_ROWS, Rows

Measure = Callable[[CheckContext], Iterable[CheckResult]]


@dataclass(frozen=True)
class Check:
    """One check: its measurement and the kind of its results.

    Attributes:
        name: of the check; its results have their own names.
        kind: "correctness", "fit" or "cost".
        measure: a function from a `CheckContext` to its results; no results if it does not apply.
        tables: whether it also applies to the flow over the numeric columns of a table given the
            other cells.

    Example:
        >>> def measure(case):
        ...     yield CheckResult.at_most("columns", "there are few columns", case.flow.dim, 10)
        >>> Check("columns", "cost", measure).tables
        True
    """

    name: str
    kind: Kind
    measure: Measure
    tables: bool = True


CHECKS: Registry[Check] = Registry(
    "check",
    [
        Check("round trip", "correctness", round_trip),
        Check("mass", "correctness", mass, tables=False),
        Check("volume", "correctness", volume),
        Check("own samples", "correctness", own_samples),
        Check("solver error", "correctness", solver_error),
        Check("divergence", "correctness", divergence),
        Check("gradients", "correctness", gradients, tables=False),
        Check("independence", "correctness", independence),
        Check("base", "fit", base, tables=False),
        Check("columns", "fit", columns, tables=False),
        Check("regions", "fit", regions, tables=False),
        Check("two samples", "fit", two_sample, tables=False),
        Check("overfitting", "fit", overfitting, tables=False),
        Check("work", "cost", work, tables=False),
        Check("steps", "cost", steps),
    ],
)


@renamed_argument("watch", "callback")
def check(
    flow: CNF,
    x: Any,
    *,
    context: Any = None,
    strict: bool = False,
    seed: int = 0,
    checks: Iterable[Check] | None = None,
    names: Sequence[str] = (),
    callback: Callable[[float], None] = lambda done: None,
) -> tuple[CheckResult, ...]:
    """Test every claim of a flow on rows that it was not fitted to.

    A check that does not apply gives no result, such as overfitting if the flow has no history. A
    result that cannot be decided has `passed=None`, such as the mass in many columns, for which no
    proposal is close to the density.

    Args:
        flow: is not changed.
        x: rows (rows, dim) in the units of the data; up to 2,000 of them, chosen at random, are
            used.
        context: (rows, context_dim), for a conditional flow.
        strict: whether to use the stricter limits.
        seed: of the choice of rows and of everything random in a check.
        checks: the checks to run; None means all registered ones.
        names: of the columns, for descriptions; by default, columns are counted from 0.
        callback: is called with the finished share of the checks.

    Raises:
        ValueError: for rows that do not fit the flow, are not finite, or are fewer than 10.

    Example:
        >>> flow = CNF(dim=1, hidden=(8, 8))
        >>> found = check(flow, flow.sample((300,), generator=torch.Generator().manual_seed(0)))
        >>> [result.name for result in found if not result.passed]
        []
    """
    case = CheckContext(_ready(flow), _rows(flow, x, context, seed), seed, strict, tuple(names))
    return tuple(run(list(CHECKS if checks is None else checks), case, callback))


def run(
    checks: list[Check], case: CheckContext, callback: Callable[[float], None]
) -> Iterator[CheckResult]:
    """The results of some checks, run one after another."""
    for k, one in enumerate(checks):
        callback(k / len(checks))
        yield from measured(one, case)
    callback(1.0)


def measured(check: Check, case: CheckContext) -> Iterator[CheckResult]:
    """The results of one check; a solve that fails is a result that does not pass."""
    try:
        for result in check.measure(case):
            yield replace(result, kind=check.kind)
    except SolverError as failure:
        claim = "the equation can be solved, as all other checks require"
        failed = CheckResult.at_most(check.name, claim, math.nan, 0.0, detail=str(failure))
        yield replace(failed, kind=check.kind)


def _ready(flow: CNF) -> CNF:
    """A copy in eval mode that wants no gradient of its parameters."""
    return copy.deepcopy(flow).eval().requires_grad_(requires_grad=False)


def _rows(flow: CNF, x: Any, context: Any, seed: int) -> Rows:
    rows = as_rows("x", x, context, None, flow.device)
    if len(rows) < FEWEST_ROWS:
        raise ValueError(f"x: expected at least {FEWEST_ROWS} rows; got {len(rows)}")
    generator = torch.Generator(rows.x.device).manual_seed(as_seed(seed))
    order = torch.randperm(len(rows), generator=generator, device=rows.x.device)
    none = rows.take(order[:0])
    flow.log_prob(none.x, none.context)  # says what is wrong with columns or context
    if len(outside := flow.to_model_coordinates(rows.x, rows.context)[2].isinf().nonzero()):
        where = f"row {outside[0].item()} lies outside the ranges of the columns"
        raise ValueError(f"{where}, where the density is zero; correct or remove it")
    return rows.take(order[:MOST_ROWS])
