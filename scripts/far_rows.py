"""Do error bounds cover the errors of scores, for rows and contexts near and far, in several precisions?

`benchmark_errors.py` runs it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zlib import crc32

import torch
from results import kept
from torch import Tensor

import cnf
from cnf.rows import Rows

# Rows that a truth is computed of at once.
CHUNK = 750
# To the region that is farthest go some flows alone: a truth there takes dopri8 a hundred thousand
# evaluations.
FARTHEST, FARTHEST_FLOWS = "300 deviations", ("moons", "conditional", "power_hourly")
# Of the rows scored near the data, how many are scored in each region far from them.
FAR_SHARE = 0.1

Region = Callable[[Tensor, int, torch.Generator], Tensor]


def near(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The first rows themselves."""
    return x[:count]


def box(x: Tensor, count: int, generator: torch.Generator, *, times: float) -> Tensor:
    """Rows (count, dim) uniform in a box so many times as wide as that of the rows x."""
    low, high = x.amin(0), x.amax(0)
    share = 2 * torch.rand(count, x.shape[1], generator=generator, dtype=x.dtype) - 1
    return (low + high) / 2 + times * share * (high - low) / 2


def shell(x: Tensor, count: int, generator: torch.Generator, *, times: float) -> Tensor:
    """Rows (count, dim) so many deviations from the mean of the rows x, in all directions."""
    away = torch.randn(count, x.shape[1], generator=generator, dtype=x.dtype)
    return x.mean(0) + times * x.std(0) * away / away.norm(dim=1, keepdim=True)


REGIONS: dict[str, Region] = {
    "held-out rows": near,
    "box, 3 times the data": partial(box, times=3),
    "box, 10 times the data": partial(box, times=10),
    "20 deviations": partial(shell, times=20),
    FARTHEST: partial(shell, times=300),
}
# What a flow computes in, and what its rows are given in.
PRECISIONS = {
    "float32": (torch.float32, torch.float32),
    "float64": (torch.float64, torch.float32),
    "bfloat16 rows": (torch.float32, torch.bfloat16),
    "float16 rows": (torch.float32, torch.float16),
}


@dataclass(frozen=True)
class Bars:
    """The bars of one flow in one region and one precision.

    Attributes:
        rows: how many were scored.
        ok: how many of them are marked so.
        covered: how many of those have an error within their bar.
        worst: largest error over bar of those.
        ratio: median of bar over error of those.
    """

    flow: str
    updates: int
    region: str
    precision: str
    rows: int
    ok: int
    covered: int
    worst: float
    ratio: float


def regions_of(rows: Rows, count: int, seed: int, *, farthest: bool) -> Iterable[tuple[str, Rows]]:
    """Rows of every region, and where there is a context, the rows with contexts of every
    region."""
    for name, region in REGIONS.items():
        if name == FARTHEST and not farthest:
            continue
        some = count if region is near else int(FAR_SHARE * count)
        generator = torch.Generator().manual_seed(seed)
        context = None if rows.context is None else rows.context[:some]
        yield name, Rows(region(rows.x, some, generator), context)
        if rows.context is not None and region is not near:
            yield (
                f"contexts: {name}",
                Rows(rows.x[:some], region(rows.context, some, generator)),
            )


def judge(
    name: str,
    updates: int,
    flow: cnf.CNF,
    rows: Rows,
    *,
    count: int,
    seed: int,
    folder: Path | None,
) -> list[Bars]:
    """Bars of a flow in all regions and precisions. Truths, which only rows marked ok need, are kept
    in the folder."""
    found = []
    for region, there in regions_of(rows, count, seed, farthest=name in FARTHEST_FLOWS):
        given = [_as(there, dtype) for _, dtype in PRECISIONS.values()]
        scored = [
            copy.deepcopy(flow).to(arithmetic).evaluate(part.x, part.context)
            for part, (arithmetic, _) in zip(given, PRECISIONS.values())
        ]
        ok = torch.cat([each.ok for each in scored])
        cell = f"{name}-{updates}-{seed}-{region}-{crc32(ok.numpy().tobytes())}"
        _, truth = kept(folder, cell, partial(_truths, flow, given, ok))
        truths = torch.full(ok.shape, torch.nan, dtype=torch.float64)
        truths[ok] = truth["log_prob"]
        for precision, evaluation, log_prob in zip(PRECISIONS, scored, truths.chunk(len(given))):
            found.append(_bars(name, updates, region, precision, evaluation, log_prob))
    return found


def _as(rows: Rows, dtype: torch.dtype) -> Rows:
    return Rows(rows.x.to(dtype), None if rows.context is None else rows.context.to(dtype))


def _truths(flow: cnf.CNF, parts: Sequence[Rows], ok: Tensor) -> tuple[dict, dict[str, Tensor]]:
    """log p of those rows of all parts, one after another, that are ok."""
    x, context = torch.cat([rows.x.double() for rows in parts])[ok], None
    if parts[0].context is not None:
        context = torch.cat([rows.context.double() for rows in parts])[ok]
    return {}, {"log_prob": exact(flow, x, context)}


def exact(flow: cnf.CNF, x: Tensor, context: Tensor | None = None) -> Tensor:
    """log p by dopri8 at 1e-10 in float64."""
    fine = copy.deepcopy(flow).double()
    y, condition, ladj = fine.to_model_coordinates(x.double(), context)
    solver = cnf.Torchdiffeq("dopri8", rtol=1e-10, atol=1e-10, max_evaluations=100_000)
    found = [y.new_empty(0)]
    for places in torch.arange(len(y)).split(CHUNK):
        given = None if condition is None else condition[places]
        found.append(fine.solve_log_prob(y[places], given, solver).log_prob)
    return torch.cat(found) + ladj


def _bars(
    name: str,
    updates: int,
    region: str,
    precision: str,
    found: cnf.Evaluation,
    truth: Tensor,
) -> Bars:
    ok = found.ok
    errors = (found.log_prob.double() - truth).abs()[ok]
    bars = found.error.double()[ok]
    return Bars(
        flow=name,
        updates=updates,
        region=region,
        precision=precision,
        rows=len(ok),
        ok=int(ok.sum()),
        covered=int((errors <= bars).sum()),
        worst=(errors / bars).max().item() if len(errors) else 0.0,
        ratio=(bars / errors.clamp(min=1e-12)).median().item() if len(errors) else 0.0,
    )
