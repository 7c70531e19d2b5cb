"""Accuracy of amortized and exact conditionals, on tables with a known law.

    python scripts/questions.py --steps 800 --out figures/questions.json

The tables are a Gaussian and a mixture of four Gaussians in 6 and in 10 columns. For each, a flow is fitted
alone and with `any_subset=True`, and is asked for random columns given random others. For the amortized
answer, the script measures the mean of log p − log q over test rows (the Kullback-Leibler divergence). For
the exact one, it measures the distance to a long run of the same joint density, the fraction of error
bounds that cover it, and the effective sample size. It also measures the integral of one-column answers on
a grid, and the time of a marginal compared with that of `log_prob`."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import cnf
from cnf.flows import SubsetDensity

ROWS, TEST, EXACT_ROWS, DRAWS, LONG = 10_000, 1_000, 16, 256, 4_096
F64 = torch.float64


@dataclass(frozen=True)
class Law:
    """A mixture of Gaussians with every marginal known.

    Attributes:
        weights: (components,)
        means: (components, dim)
        covariances: (components, dim, dim)
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor

    @classmethod
    def random(cls, components: int, dim: int) -> Law:
        """Means a few deviations apart, and covariances of all shapes."""
        source = torch.Generator().manual_seed(5)
        means = 2 * torch.randn(components, dim, generator=source, dtype=F64)
        roots = torch.randn(components, dim, dim, generator=source, dtype=F64) / math.sqrt(dim)
        weights = torch.arange(components, 0, -1, dtype=F64)
        covariances = roots @ roots.mT + 0.2 * torch.eye(dim)
        return cls(weights / weights.sum(), means, covariances)

    def sample(self, rows: int, seed: int) -> Tensor:
        """Draws (rows, dim)."""
        source = torch.Generator().manual_seed(seed)
        chosen = torch.multinomial(self.weights, rows, replacement=True, generator=source)
        noise = torch.randn(rows, self.means.shape[1], 1, generator=source, dtype=F64)
        factors = torch.linalg.cholesky(self.covariances)
        return self.means[chosen] + (factors[chosen] @ noise).squeeze(-1)

    def log_prob(self, x: Tensor, columns: list[int]) -> Tensor:
        """log p(x[columns]) (rows,), zero for no columns."""
        if not columns:
            return torch.zeros(len(x), dtype=F64)
        picked = self.covariances[:, columns][:, :, columns]
        parts = MultivariateNormal(self.means[:, columns], picked).log_prob(x[:, None, columns])
        return (parts + self.weights.log()).logsumexp(1)


def asked(flow: cnf.CNF, x: Tensor, columns: list[int], known: list[int]) -> SubsetDensity:
    """p(columns | known) of the flow, row by row."""
    density = flow.marginal([*columns, *known])
    if not known:
        return density
    return density.conditional({len(columns) + k: x[:, j] for k, j in enumerate(known)})


def choices(dim: int) -> list[tuple[list[int], list[int]]]:
    """Columns of sizes one, half and all but one, given none, one and as many as are left."""
    source = torch.Generator().manual_seed(0)
    found = []
    for size in (1, dim // 2, dim - 1):
        for given in sorted({0, 1, dim - size}):
            order = torch.randperm(dim, generator=source).tolist()
            found.append((order[:size], order[size : size + given]))
    return found


@torch.no_grad()
def measured(flow: cnf.CNF, law: Law, x: Tensor) -> dict[str, Any]:
    """What the answers of a flow are worth, the worst over all choices of columns."""
    kls, offs, covered, sizes = [], [], [], []
    for columns, known in choices(flow.dim):
        found = asked(flow, x, columns, known).evaluate(x[:, columns])
        truth = law.log_prob(x, [*columns, *known]) - law.log_prob(x, known)
        kls.append((truth - found.log_prob).mean().item())
        some = x[:EXACT_ROWS]
        density = asked(flow, some, columns, known)
        exact = density.exact(DRAWS).evaluate(some[:, columns])
        long = density.exact(LONG).evaluate(some[:, columns])
        off = (exact.log_prob - long.log_prob).abs()
        offs.append((exact.log_prob - long.log_prob).mean().abs().item())
        covered.append((off <= exact.error + long.error).double().mean().item())
        sizes.append(exact.ess.mean().item())
    return {
        "amortized KL": max(kls),
        "exact, off": max(offs),
        "covered": sum(covered) / len(covered),
        "ess": min(sizes),
    }


@torch.no_grad()
def integral(flow: cnf.CNF, x: Tensor) -> float:
    """How far the integral of p(x₀ | x₁) is from one."""
    grid = torch.linspace(-25, 25, 5001, dtype=F64)[:, None]
    density = flow.conditional({1: x[0, 1].item()}).marginal([0])
    return abs(density.log_prob(grid).exp().sum().item() * 0.01 - 1)


@torch.no_grad()
def cost(flow: cnf.CNF, x: Tensor) -> float:
    """The time of a marginal of half of the columns beside that of log_prob, medians of seven."""
    columns = list(range(flow.dim // 2))
    density = flow.marginal(columns)
    times: list[list[float]] = [[], []]
    jobs: tuple[Callable[[], Any], ...] = (
        lambda: density.evaluate(x[:, columns]),
        lambda: flow.evaluate(x),
    )
    for _ in range(7):
        for kept, job in zip(times, jobs):
            start = time.process_time()
            job()
            kept.append(time.process_time() - start)
    return median(times[0]) / median(times[1])


def result(components: int, dim: int, steps: int) -> dict[str, Any]:
    """One table."""
    law = Law.random(components, dim)
    x, test = law.sample(ROWS, 1), law.sample(TEST, 2)
    spent, flows = [], []
    for any_subset in (False, True):
        torch.manual_seed(0)
        flow = cnf.CNF(dim)
        start = time.process_time()
        cnf.fit(flow, x, steps=steps, any_subset=any_subset)
        spent.append(time.process_time() - start)
        flows.append(flow)
    with torch.no_grad():
        truth = law.log_prob(test, list(range(dim)))
        joint = [(truth - flow.log_prob(test)).mean().item() for flow in flows]
    return {
        "components": components,
        "columns": dim,
        **measured(flows[1], law, test),
        "integral off": integral(flows[1], test),
        "cost": cost(flows[1], test),
        "joint KL": joint[1],
        "joint KL alone": joint[0],
        "time beside alone": spent[1] / spent[0],
    }


def main() -> None:
    """Print a line for each table, and write them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--columns", type=int, nargs="+", default=[6, 10])
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for dim in options.columns:
        for components in (1, 4):
            results.append(result(components, dim, options.steps))
            print(json.dumps(results[-1]), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps({"steps": options.steps, "tables": results}, indent=1))


if __name__ == "__main__":
    main()
