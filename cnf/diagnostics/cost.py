"""Checks of the cost of a log-density: evaluations of the field, and step lengths against its
Lipschitz constant."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch

from cnf.diagnostics.context import CheckContext, jacobian
from cnf.diagnostics.result import CheckResult
from cnf.flows import Evaluation

PATHS = 64
# An explicit Runge-Kutta step of order four or five amplifies a decaying solution where hL is larger.
STABLE = 3.3


def work(case: CheckContext) -> Iterator[CheckResult]:
    """The share of rows that could be solved, and the evaluations that a row takes."""
    yield from answered(case.scored, strict=case.strict)
    nfe = case.scored.nfe.double()
    yield CheckResult.at_most(
        "evaluations",
        "a log-density takes few evaluations of the field",
        nfe.mean().item(),
        case.limit(250, 120),
        detail=f"mean of {len(case.rows)} rows; at most {int(nfe.max())}",
    )


def answered(scored: Evaluation, *, strict: bool) -> Iterator[CheckResult]:
    """The share of rows whose error bound is within the tolerance."""
    yield CheckResult.at_least(
        "answers",
        "every finite row has a log-density within the tolerance",
        scored.ok.double().mean().item(),
        0.999 if strict else 0.99,
        kind="cost",
        detail=f"share of {len(scored.ok)} rows",
    )


@torch.no_grad()
def steps(case: CheckContext) -> Iterator[CheckResult]:
    """The length of each step times the Lipschitz constant of the field there."""
    flow, rows = case.exact, case.first(PATHS)
    times = sorted(set(flow.solver.step_times))
    if not times:
        return
    nodes = rows.x.new_tensor(times, dtype=torch.float64)
    middle = (nodes[1:] + nodes[:-1]) / 2
    path = flow.trajectory(rows.x, middle.tolist(), rows.context, reverse=True)
    _, context, _ = flow.to_model_coordinates(rows.x, rows.context)
    moments = flow.field.bind(context).at(middle)
    inner = [flow.to_model_coordinates(x, rows.context)[0] for x in path]
    slopes = [jacobian(at.velocity, y, 1e-5) for at, y in zip(moments, inner)]
    typical = torch.linalg.matrix_norm(torch.stack(slopes), ord=2).quantile(0.95, dim=1)
    lengths = [b - a for a, b in pairwise(times)]
    yield CheckResult.at_most(
        "steps",
        "no solver step is so long that errors grow",
        (nodes.diff() * typical).max().item(),
        case.limit(STABLE, STABLE / 2),
        detail=f"hL over {len(lengths)} steps of {min(lengths):.3g} to {max(lengths):.3g};"
        f" Lipschitz constant up to {typical.max():.1f}",
    )
