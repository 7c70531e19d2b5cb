"""Checks of fit: distances between held-out rows and samples, with a margin for chance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cnf.diagnostics.context import CheckContext
from cnf.diagnostics.result import CheckResult
from cnf.flows import Evaluation
from cnf.rows import weighted_nll

BASE_SAMPLES = 20_000
# Probability that chance alone exceeds a margin.
LEVEL = 1e-3
STANDARD_ERRORS = 4


def sampling_margin(*counts: int, columns: int = 1) -> float:
    """What chance does to the largest distance between distribution functions, √(ln(2
    columns/level)/2n) for each sample of n, by the inequality of Dvoretzky, Kiefer and Wolfowitz
    (Massart 1990).

    >>> round(sampling_margin(2000), 4)
    0.0436
    """
    return sum(math.sqrt(math.log(2 * columns / LEVEL) / (2 * n)) for n in counts)


def distance(u: Tensor) -> Tensor:
    """The largest distance (columns,) between the distribution of u (rows, columns) and the
    uniform one.

    >>> distance(torch.tensor([[0.25], [0.75]])).item()
    0.25
    """
    u, n = u.sort(0).values, len(u)
    above = torch.arange(1, n + 1, dtype=u.dtype, device=u.device)[:, None] / n
    return torch.maximum(above - u, u - above + 1 / n).amax(0)


def ranks(values: Tensor, samples: Tensor) -> Tensor:
    """The share of samples (samples, rows or 1) below each value (rows,); of samples equal to it,
    a share between none and all of them, evenly spread over the rows.

    The ranks of values that are distributed as the samples are uniform, ties or not.

    >>> ranks(torch.zeros(4), torch.zeros(9, 1))
    tensor([0.1250, 0.3750, 0.6250, 0.8750], dtype=torch.float64)
    """
    if samples.shape[1] == 1:
        ordered, values = samples[:, 0].sort().values, values.contiguous()
        below = torch.searchsorted(ordered, values).double()
        equal = torch.searchsorted(ordered, values, right=True).double() - below
    else:
        below, equal = (samples < values).double().sum(0), (samples == values).double().sum(0)
    spread = (torch.arange(len(values), device=below.device) + 0.5) / len(values)
    return (below + spread * equal) / len(samples)


@torch.no_grad()
def base(case: CheckContext) -> Iterator[CheckResult]:
    """Held-out rows at t = 0 against the base: each column, and the density of the base."""
    flow, rows = case.flow, case.rows
    z = flow.to_model_coordinates(case.start_points(flow, rows), rows.context)[0]
    z = z[z.isfinite().all(-1)]
    generator = case.generator(8)
    drawn = flow.base.sample((BASE_SAMPLES,), generator, dtype=flow.dtype, device=flow.device)
    pairs = [*zip(z.T, drawn.T), (flow.base.log_prob(z), flow.base.log_prob(drawn))]
    u = torch.stack([ranks(values, samples[:, None]) for values, samples in pairs], 1)
    worst = distance(u).max().item() if len(u) else math.nan
    yield CheckResult.at_most(
        "base",
        "held-out rows, carried to t = 0, are distributed as the base",
        worst,
        case.limit(0.05, 0.02) + sampling_margin(len(rows), columns=len(pairs)),
        detail=f"largest distance of distributions, {len(rows)} rows",
    )


@torch.no_grad()
def columns(case: CheckContext) -> Iterator[CheckResult]:
    """The ranks of held-out rows among samples in each column (probability integral transform)."""
    (samples, _), rows = case.drawn, case.compared
    values = rows.x.to(samples.dtype)
    u = torch.stack([ranks(x, s) for x, s in zip(values.T, samples.unbind(-1))], 1)
    found = distance(u)
    yield CheckResult.at_most(
        "columns",
        "each column of held-out rows is distributed as that of samples",
        found.max().item(),
        case.limit(0.05, 0.02) + _margin(case, len(rows), columns=len(found)),
        detail=f"worst is {case.name(int(found.argmax()))}; {len(rows)} rows",
    )


@torch.no_grad()
def regions(case: CheckContext) -> Iterator[CheckResult]:
    """The region of highest density that holds a share q of samples holds a share q of held-out
    rows."""
    (_, of_samples), rows = case.drawn, case.compared
    of_rows = case.scored.log_prob[: len(rows)]
    u = ranks(of_rows.nan_to_num(nan=-torch.inf), of_samples.to(of_rows.dtype))
    yield CheckResult.at_most(
        "regions",
        "regions of highest density contain the right share of rows",
        distance(u[:, None]).item(),
        case.limit(0.05, 0.02) + _margin(case, len(rows)),
        detail=f"largest difference of shares, {len(rows)} rows",
    )


def _margin(case: CheckContext, rows: int, columns: int = 1) -> float:
    """The sampling margin where all rows share the samples, or where each row has its own few."""
    count = len(case.drawn[0])
    shared = case.rows.context is None
    return (
        sampling_margin(rows, count, columns=columns)
        if shared
        else sampling_margin(rows, columns=columns) + 1 / count
    )


def overfitting(case: CheckContext) -> Iterator[CheckResult]:
    """Held-out NLL minus that of training rows, which the history stores."""
    yield from memorized(case.flow.metadata, case.scored, case.flow.dim, strict=case.strict)


def memorized(
    metadata: dict[str, Any], scored: Evaluation, dim: int, *, strict: bool
) -> Iterator[CheckResult]:
    """The difference in mean log-density between training rows and the scored rows; no result if
    it is unknown."""
    history = metadata.get("history") or {}
    seen, seen_error = history.get("train_nll"), history.get("train_se")
    if seen is None or seen_error is None:
        return
    nll, error = weighted_nll(scored.log_prob[scored.ok], None)
    yield CheckResult.at_most(
        "overfitting",
        "held-out rows are as likely as training rows",
        nll - seen,
        (0.05 if strict else 0.15) * max(1, dim / 2)
        + STANDARD_ERRORS * math.hypot(error, seen_error),
        kind="fit",
        unit="nats",
        detail=f"NLL {nll:.3f} ± {error:.3f} held out, {seen:.3f} ± {seen_error:.3f} in training",
    )
