"""p(redshift | six magnitudes) of galaxies: a flow that is conditioned after its fit, and its peers.

    pip install pzflow        # without it, pzflow is skipped
    CNF_SHARED_DATA=... python scripts/redshift.py        # figures/redshift.json

Rows are those of `real_tables`. Every method returns a density for each held-out galaxy on one grid of
redshifts, on which it is normalized. Ours are a joint density fitted with `any_subset=True` and a flow of
the redshift alone with the magnitudes as context. The joint density is evaluated amortized (`posterior`)
and as in pzflow, by its values on the grid. The peers are pzflow at its defaults, a neural spline flow of
the redshift given the magnitudes, as in neural posterior estimation (zuko, trained as in `peers`), and
quantile regression forests (Meinshausen 2006), whose weights are smoothed by the kernel that validation
rows select.

The CDE loss is the mean of ∫ p(z)² dz − 2 p(z of the galaxy) (Izbicki & Lee 2017). The CRPS is the mean of
∫ (F(z) − 1[z ≥ that of the galaxy])² dz. PIT is the largest distance between the distribution of F(z of
the galaxy) and the uniform one. The flows have a budget of processor seconds on one thread; pzflow trains
for enough epochs to take at least as long, without its compilation. The reported seconds are those of fit
and evaluation."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import real_tables
import torch
import zuko
from peers import Budget, neural
from real_tables import Table
from results import read_json, write_json
from scipy.integrate import cumulative_trapezoid, trapezoid
from scipy.sparse import csr_array
from scipy.stats import kstest
from sklearn.ensemble import RandomForestRegressor
from torch import Tensor

import cnf

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)
try:
    from pzflow import Flow
except ImportError:
    Flow = None

NAMES = ["redshift", "u", "g", "r", "i", "z", "y"]
JUDGED, POINTS, EPOCHS = 500, 1_201, 12
TREES, LEAF, WIDTHS = 100, 5, (0.5, 1, 2, 4, 8, 16, 32)  # kernels in steps of the grid

Answer = Callable[[Table, np.ndarray], np.ndarray]  # density or log-density (rows, points)


def frame(rows: Tensor) -> pd.DataFrame:
    return pd.DataFrame(rows.numpy(), columns=NAMES)


def on_grid(rows: Tensor, grid: np.ndarray) -> Tensor:
    """Every row with every redshift of the grid (rows · points, columns)."""
    points = rows.repeat_interleave(len(grid), 0)
    points[:, 0] = torch.as_tensor(grid).repeat(len(rows))
    return points


def normalized(log_density: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Densities with integral one on the grid."""
    density = np.exp(log_density - log_density.max(1, keepdims=True))
    return density / trapezoid(density, grid, axis=1)[:, None]


def questions(table: Table, grid: np.ndarray, fit: dict[str, Any]) -> dict[str, np.ndarray]:
    """One joint density, asked in two ways."""
    model = cnf.fit_table(frame(table.train), valid=frame(table.valid), any_subset=True, **fit)
    known = frame(table.test)[NAMES[1:]]
    amortized = model.conditional(known).posterior("redshift", grid)
    joint = model.log_prob(frame(on_grid(table.test, grid))).reshape(len(known), -1)
    return {"cnf, amortized": amortized, "cnf, joint": normalized(joint.numpy(), grid)}


def alone(table: Table, grid: np.ndarray, fit: dict[str, Any]) -> np.ndarray:
    """A flow of the redshift whose context is the magnitudes."""
    model = cnf.fit_table(frame(table.train), valid=frame(table.valid), context=NAMES[1:], **fit)
    log_prob = model.log_prob(frame(on_grid(table.test, grid)))
    return normalized(log_prob.reshape(-1, len(grid)).numpy(), grid)


def pzflow_posterior(table: Table, grid: np.ndarray, epochs: int, seed: int) -> np.ndarray:
    """pzflow's posterior at its defaults."""
    flow = Flow(NAMES)
    flow.train(frame(table.train), epochs=epochs, seed=seed)
    return np.asarray(flow.posterior(frame(table.test), column="redshift", grid=grid))


class RedshiftFlow(torch.nn.Module):
    """A neural spline flow of the first column given the others."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = zuko.flows.NSF(
            1, len(NAMES) - 1, transforms=4, bins=8, hidden_features=(128, 128)
        )

    def forward(self) -> RedshiftFlow:
        """The density itself, as `peers.neural` asks for it."""
        return self

    def log_prob(self, rows: Tensor) -> Tensor:
        """log p(redshift | magnitudes) (rows,)."""
        return self.flow(rows[:, 1:]).log_prob(rows[:, :1])


def spline_flow(table: Table, grid: np.ndarray, seconds: float, seed: int) -> np.ndarray:
    """Neural posterior estimation by a neural spline flow."""
    points = Table(table.name, table.train, table.valid, on_grid(table.test, grid))
    scored = neural(RedshiftFlow, points, Budget(seconds, time.process_time), seed)
    return normalized(scored.log_prob.reshape(-1, len(grid)).numpy(), grid)


def forest(table: Table, grid: np.ndarray, trees: int, seed: int) -> np.ndarray:
    """Weights of the rows in the leaf of each tree, smoothed by a Gaussian kernel."""
    train, valid, test = (part.numpy() for part in (table.train, table.valid, table.test))
    model = RandomForestRegressor(trees, min_samples_leaf=LEAF, random_state=seed)
    leaves = model.fit(train[:, 1:], train[:, 0]).apply(train[:, 1:])
    step = grid[1] - grid[0]
    cells = np.clip(np.rint((train[:, 0] - grid[0]) / step), 0, len(grid) - 1).astype(int)

    def weights(rows: np.ndarray) -> np.ndarray:
        found = np.zeros((len(rows), len(grid)))
        for seen, asked in zip(leaves.T, model.apply(rows[:, 1:]).T):
            shape = seen.max() + 1, len(grid)
            counts = csr_array((np.ones(len(seen)), (seen, cells)), shape=shape)
            found += counts[asked].toarray() / np.asarray(counts.sum(1))[asked, None]
        return found / len(leaves.T)

    judges = valid[: len(test)]
    kept = weights(judges)
    smoothed = {width: kernel(len(grid), width) / step for width in WIDTHS}
    best = max(
        WIDTHS, key=lambda width: log_likelihood(kept @ smoothed[width], judges[:, 0], grid).mean()
    )
    return weights(test) @ smoothed[best]


def kernel(points: int, width: float) -> np.ndarray:
    """A Gaussian of so many steps about each point of a grid, with sum one (points, points)."""
    apart = np.subtract.outer(np.arange(points), np.arange(points))
    found = np.exp(-0.5 * (apart / width) ** 2)
    return found / found.sum(1, keepdims=True)


def log_likelihood(density: np.ndarray, truth: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """log p (rows,) at the truth, straight between the points of the grid."""
    logs = np.log(np.maximum(density, 1e-300))
    return np.array([np.interp(z, grid, log) for z, log in zip(truth, logs)])


def judged(density: np.ndarray, truth: np.ndarray, grid: np.ndarray) -> dict[str, Any]:
    """CDE loss, log-likelihood and CRPS with their standard errors, and the distance of PIT."""
    logs = log_likelihood(density, truth, grid)
    cumulative = cumulative_trapezoid(density, grid, axis=1, initial=0)
    pit = np.array([np.interp(z, grid, each) for z, each in zip(truth, cumulative)])
    beyond = grid >= truth[:, None]
    scores = {
        "cde_loss": trapezoid(density**2, grid, axis=1) - 2 * np.exp(logs),
        "log_likelihood": logs,
        "crps": trapezoid((cumulative - beyond) ** 2, grid, axis=1),
    }
    means = {
        name: [float(each.mean()), float(each.std() / len(each) ** 0.5)]
        for name, each in scores.items()
    }
    return {**means, "pit": float(kstest(pit.clip(0, 1), "uniform").statistic)}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--seconds", type=float, default=40, help="processor seconds per fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="generated rows and few training steps"
    )
    return parser.parse_args(argv)


def made(rows: int = 600) -> Table:
    """Seven columns of which the first is nearly the sum of two others, for a trial run."""
    x = torch.randn(rows, len(NAMES), generator=torch.Generator().manual_seed(0)).double()
    x[:, 0] = 0.6 * (x[:, 1] + x[:, 2]) + 0.4 * x[:, 0]
    return Table("made", *x.tensor_split((rows * 8 // 10, rows * 9 // 10)))


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.quick and not real_tables.there("galaxy_photometry"):
        raise SystemExit("no galaxies: set CNF_SHARED_DATA")
    table = made() if options.quick else real_tables.load("galaxy_photometry")
    rows, points = (20, 41) if options.quick else (JUDGED, POINTS)
    seconds, trees, seed = options.seconds, TREES, options.seed
    fit: dict[str, Any] = {"seconds": seconds, "clock": time.process_time, "seed": seed}
    if options.quick:
        seconds, trees, fit = 0.2, 5, {"steps": 20, "seed": seed, "hidden": (8, 8)}
    table = Table(table.name, table.train, table.valid, table.test[:rows])
    low, high = table.train[:, 0].aminmax()
    grid, truth = np.linspace(low.item(), high.item(), points), table.test[:, 0].numpy()
    jobs: dict[str, Callable[[], Any]] = {
        "cnf, asked": lambda: questions(table, grid, fit),
        "cnf, redshift alone": lambda: alone(table, grid, fit),
        "spline flow": lambda: spline_flow(table, grid, seconds, seed),
        "quantile forest": lambda: forest(table, grid, trees, seed),
    }
    if Flow is None:
        print("pzflow is not installed: left out")
    elif not options.quick:
        jobs["pzflow"] = lambda: pzflow_posterior(table, grid, EPOCHS, seed)
    path = options.out / "redshift.json"
    results = {} if options.quick else read_json(path)
    for name, job in jobs.items():
        start = time.process_time()
        found = job()
        spent = time.process_time() - start
        for way, density in (found if isinstance(found, dict) else {name: found}).items():
            results[way] = judged(density, truth, grid) | {"seconds": spent}
            print(way, results[way], flush=True)
        write_json(path, results)


if __name__ == "__main__":
    main()
