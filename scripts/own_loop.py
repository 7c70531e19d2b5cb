"""A hand-written training loop compared with `cnf.fit` and zuko: cost per step, and final likelihood.

    python scripts/own_loop.py            # writes figures/own_loop.json

The cost is that of one training step of 512 rows in two columns, in processor time; every median is over
interleaved rounds. Then `cnf.fit` gets a number of seconds on moons, and the loop of docs/training.md gets
as much processor time; both are scored on fresh rows.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import zuko
from results import write_json
from torch import Tensor

import cnf
from cnf.datasets import toy
from cnf.training.maximum_likelihood import likelihood_loss

ROWS, TRAIN, TEST = 512, 20_000, 10_000
WARMUP, LEARNING_RATE, CALIBRATE_EVERY = 0.1, 5e-3, 20


def costs(rounds: int) -> dict[str, float]:
    """Processor time of one update in milliseconds."""
    torch.manual_seed(0)
    x, flow, peer = torch.randn(ROWS, 2), cnf.CNF(2), zuko.flows.CNF(2)
    torch.nn.init.normal_(flow.field.W3, std=0.05)
    generator = torch.Generator().manual_seed(0)

    def objective() -> None:
        grid = cnf.Grid.uniform(12, "adams")
        parts = likelihood_loss(flow, x, None, generator, solver=grid)
        (parts.nll + 10 * parts.solver_error).backward()

    updates: dict[str, Callable[[], None]] = {
        "by hand": lambda: (-flow.log_prob(x).mean()).backward(),
        "objective of cnf.fit": objective,
        "zuko": lambda: (-peer().log_prob(x).mean()).backward(),
    }
    spent: dict[str, list[float]] = {name: [] for name in updates}
    for _ in range(rounds + 1):
        for name, update in updates.items():
            start = time.process_time()
            update()
            spent[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(times[1:]) for name, times in spent.items()}


def by_hand(x: Tensor, seconds: float) -> cnf.CNF:
    """The loop of docs/training.md for so many seconds of the processor."""
    torch.manual_seed(0)
    flow = cnf.CNF(2, preprocess=cnf.Affine.standardize(x))
    optimizer = torch.optim.Adam(flow.parameters(), LEARNING_RATE, betas=(0.9, 0.95))
    start, step, share = time.process_time(), 0, 0.0
    while share < 1:
        for group in optimizer.param_groups:
            rise, fall = min(share / WARMUP, 1), 0.5 * (1 + math.cos(math.pi * share))
            group["lr"] = LEARNING_RATE * max(rise, 0.01) * fall
        loss = -flow.log_prob(x[torch.randint(len(x), (ROWS,))]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % CALIBRATE_EVERY == 0:
            flow.calibrate(x[:256], tolerance=1e-2)
        share = (time.process_time() - start) / seconds
    print(f"by hand: {step} updates")
    return flow.eval().calibrate(x)


def nll(flow: cnf.CNF, x: Tensor) -> tuple[float, float]:
    """Held-out negative log-likelihood and its standard error."""
    with torch.no_grad():
        scores = -flow.log_prob(x)
    return scores.mean().item(), (scores.std() / len(x) ** 0.5).item()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--seconds", type=float, default=60.0, help="budget of the fit in seconds")
    parser.add_argument("--quick", action="store_true", help="a trial run")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    seconds, rounds = (1.0, 1) if options.quick else (options.seconds, 7)
    found = costs(rounds)
    print({name: round(cost) for name, cost in found.items()}, flush=True)
    generator = torch.Generator().manual_seed(0)
    x, test = (toy("moons").sample(size, generator) for size in (TRAIN, TEST))
    start, fitted = time.process_time(), cnf.CNF(2)
    cnf.fit(fitted, x, seconds=seconds, seed=0)
    spent = time.process_time() - start
    scores = {"cnf.fit": nll(fitted, test), "by hand": nll(by_hand(x, spent), test)}
    for name, (mean, error) in scores.items():
        print(f"{name:<10}{mean:8.4f} ± {error:.4f} nats")
    write_json(
        options.out / "own_loop.json",
        {"milliseconds": found, "processor_seconds": spent, "nll": scores},
    )


if __name__ == "__main__":
    main()
