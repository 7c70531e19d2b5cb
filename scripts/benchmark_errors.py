"""Does the error bound of a score cover its true error, and how many evaluations does it take?

    python scripts/benchmark_errors.py            # writes figures/benchmark_errors.json, error_bars.json

Flows are fitted to the eight toys, to a conditional density and, if their folder exists, to three
real tables, each with few and with many training steps. Held-out rows, rows and contexts far away,
and rows of low precision are scored on the calibrated grid; the reference is dopri8 at 1e-10 in
float64. The longer fits are compared with torchdiffeq's dopri5, as `odeint` runs it, at the loosest
tolerance whose mean error is no larger.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import real_tables
import torch
from far_rows import exact, judge
from results import write_json
from torch import Tensor
from torchdiffeq import odeint

import cnf
from cnf.datasets import TOYS
from cnf.rows import Rows

TABLES = ("galaxy_photometry", "magic_gamma", "power_hourly")
CONDITIONAL = "conditional"
TRAIN = 50_000
HEADER = (
    f"{'flow':<19}{'covered':>8}{'bar/error':>10}{'mean error':>11}{'worst bar':>10}{'NFE':>6}"
    f"{'dopri5 NFE':>11}{'its error':>10}{'ratio':>7}"
)


@dataclass(frozen=True)
class Result:
    """One flow.

    Attributes:
        covered: share of rows whose bar is no smaller than their true error.
        ratio: median of bar over true error.
        error: mean true error in nats.
        worst_bar: largest bar in nats.
        nfe: mean evaluations a row.
        dopri5_nfe: evaluations of torchdiffeq's dopri5 for no larger an error.
        dopri5_error: its mean true error in nats.
    """

    flow: str
    covered: float
    ratio: float
    error: float
    worst_bar: float
    nfe: float
    dopri5_nfe: int
    dopri5_error: float

    def __str__(self) -> str:
        return (
            f"{self.flow:<19}{self.covered:>8.3f}{self.ratio:>10.1f}{self.error:>11.1e}{self.worst_bar:>10.1e}"
            f"{self.nfe:>6.0f}{self.dopri5_nfe:>11}{self.dopri5_error:>10.1e}"
            f"{self.nfe / self.dopri5_nfe:>7.2f}"
        )


def rows_of(name: str, seed: int) -> tuple[Rows, Rows]:
    """Rows to learn from and rows to score."""
    generator = torch.Generator().manual_seed(seed)
    if name == CONDITIONAL:
        rows = conditional(TRAIN + 5_000, generator)
        return rows.take(torch.arange(TRAIN)), rows.take(torch.arange(TRAIN, len(rows)))
    if name in TOYS:
        x = TOYS[name].sample(TRAIN + 5_000, generator)
        return Rows(x[:TRAIN]), Rows(x[TRAIN:])
    table = real_tables.load(name)
    return Rows(table.train), Rows(table.test)


def conditional(count: int, generator: torch.Generator) -> Rows:
    """Rows (count, 2) whose correlation and spread go with a context c (count, 1)."""
    c = torch.randn(count, 1, generator=generator)
    a, b = torch.randn(2, count, 1, generator=generator)
    return Rows(torch.cat([a * (0.5 + c.abs()), c * a + 0.3 * b], 1), c)


def fitted(name: str, train: Rows, steps: int, seed: int, models: Path | None) -> cnf.CNF:
    """A flow for a table; one that is kept is only calibrated anew."""
    kept = models and models / f"{name}-{steps}-{seed}.safetensors"
    if kept and kept.exists():
        return cnf.load(kept).calibrate(train.x, context=train.context)
    width = 0 if train.context is None else train.context.shape[1]
    flow = cnf.CNF(dim=train.x.shape[1], context_dim=width)
    cnf.fit(flow, train.x, context=train.context, seed=seed, steps=steps)
    if kept:
        models.mkdir(parents=True, exist_ok=True)
        flow.save(kept)
    return flow


@torch.no_grad()
def measure(name: str, flow: cnf.CNF, x: Tensor) -> Result:
    """Bars and errors of a flow on rows x."""
    truth = exact(flow, x)
    found = flow.evaluate(x)
    errors = (found.log_prob.double() - truth).abs()
    nfe, error = dopri5_at(flow, x, truth, errors.mean().item())
    return Result(
        flow=name,
        covered=(found.error.double() >= errors).double().mean().item(),
        ratio=(found.error.double() / errors.clamp(min=1e-12)).median().item(),
        error=errors.mean().item(),
        worst_bar=found.error.max().item(),
        nfe=found.nfe.double().mean().item(),
        dopri5_nfe=nfe,
        dopri5_error=error,
    )


def dopri5_at(flow: cnf.CNF, x: Tensor, truth: Tensor, target: float) -> tuple[int, float]:
    """Evaluations and mean error of dopri5 at the loosest tolerance, a power of 10^(1/8), that
    hits the target."""
    (y, _, ladj), bound = flow.to_model_coordinates(x), flow.field.bind()
    times, calls = y.new_tensor([1.0, 0.0]), []

    def derivative(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        calls.append(t)
        return bound.at(t[None])[0].velocity_and_divergence(state[0])

    for power in range(8, 57):
        calls.clear()
        tolerance = 10 ** (-power / 8)
        start = y, y.new_zeros(len(y))
        z, q = odeint(derivative, start, times, rtol=tolerance, atol=tolerance, method="dopri5")
        log_prob = flow.base.log_prob(z[-1]) + q[-1]
        error = (log_prob.double() + ladj.double() - truth).abs().mean().item()
        if error <= target:
            break
    return len(calls), error


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[60, 3_000], help="training steps of the fits"
    )
    parser.add_argument(
        "--models", type=Path, help="folder in which fitted flows and references are kept"
    )
    parser.add_argument("--flows", nargs="+", help="which flows")
    parser.add_argument("--rows", type=int, default=500, help="held-out rows scored")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a trial run on one toy")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    names = options.flows or [*TOYS, CONDITIONAL, *filter(real_tables.there, TABLES)]
    if options.quick:
        names, options.steps, options.rows = ["moons"], [60], 50
    results, bars = [], []
    print(HEADER, flush=True)
    for name, steps in product(names, options.steps):
        train, test = rows_of(name, options.seed)
        flow = fitted(name, train, steps, options.seed, options.models)
        if steps == max(options.steps) and test.context is None:
            results.append(measure(name, flow, test.x[: options.rows]))
            print(results[-1], flush=True)
        with torch.no_grad():
            bars += judge(
                name,
                steps,
                flow,
                test,
                count=options.rows,
                seed=options.seed,
                folder=options.models,
            )
    write_json(options.out / "benchmark_errors.json", results)
    write_json(options.out / "error_bars.json", bars)


if __name__ == "__main__":
    main()
