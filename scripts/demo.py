"""A first run: fit a toy and a table with the `cnf` commands, and compare with known results.

    python scripts/demo.py --out demo

The script takes under five minutes and writes only to its folder. The toy has an exact entropy, which no
model can beat. The table comes with scikit-learn and is compared with Gaussians.
"""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.mixture import GaussianMixture

import cnf
from cnf import plotting
from cnf.cli import main as cnf_command
from cnf.datasets import TOYS
from cnf.datasets.bundled import bundled_table
from cnf.tables import read_table, write_table

TOY = "checkerboard"
TABLE = "breast_cancer"
SHOWN = ["mean radius", "mean texture", "mean smoothness", "mean concavity"]
COMPONENTS = (1, 2, 3, 4, 6, 8)


def title(text: str) -> None:
    print(f"\n{text}\n{'─' * len(text)}")


def run(*words: str | int | Path) -> None:
    """Show a command of `cnf` and run it."""
    print(f"\n$ {shlex.join(['cnf', *map(str, words)])}", flush=True)
    if code := cnf_command([str(word) for word in words]):
        raise SystemExit(code)


def summary(values: np.ndarray) -> str:
    """Mean and standard error of values, one a row."""
    return f"{values.mean():8.4f} ± {values.std(ddof=1) / len(values) ** 0.5:.4f}"


def toy(out: Path, *, budget: tuple[str, str], rows: int, film: str, seed: int) -> None:
    """Fit, measure and draw a density that is known exactly."""
    model = out / f"{TOY}.safetensors"
    run("fit", f"toy:{TOY}", "-o", model, *budget, "--seed", str(seed))
    judge_toy(model, rows=rows, seed=seed + 1_000_000)
    run("plot", model, "density", "-o", out / f"{TOY}_density.png", "--data", f"toy:{TOY}")
    run("plot", model, "samples", "-o", out / f"{TOY}_samples.png")
    run("plot", model, "trajectories", "-o", out / f"{TOY}_trajectories.png")
    run("plot", model, film, "-o", out / f"{TOY}_film.gif")


@torch.no_grad()
def judge_toy(model: Path, *, rows: int, seed: int) -> None:
    """Print the NLL of fresh points beside the least that is possible."""
    truth = TOYS[TOY]
    x = truth.sample(rows, torch.Generator().manual_seed(seed))
    log_prob = cnf.load(model).flow.log_prob(x).double()
    print(f"\nOn {rows:,} fresh points, in nats (lower is better):")
    print(f"  flow            {summary(-log_prob.numpy())}")
    print(f"  exact entropy   {truth.entropy:8.4f}   no model can go below")
    print(f"  gap             {summary((truth.log_prob(x) - log_prob).numpy())}")


def write_tumours(out: Path, *, seed: int) -> dict[str, Path]:
    """Three files of the breast-cancer table that comes with scikit-learn: 569 tumours, 30
    measurements."""
    measurements = bundled_table(TABLE)
    shuffled = measurements.sample(frac=1, random_state=seed)
    cuts = (0, round(0.6 * len(shuffled)), round(0.7 * len(shuffled)), len(shuffled))
    files = {name: out / f"{TABLE}_{name}.csv" for name in ("train", "valid", "test")}
    for file, (first, last) in zip(files.values(), pairwise(cuts)):
        write_table(shuffled[first:last], file)
    return files


def table(out: Path, *, budget: tuple[str, str], seed: int) -> None:
    """Fit, score, sample and draw a table by the command line, and compare."""
    files = write_tumours(out, seed=seed)
    model, scores, samples = (
        out / f"{TABLE}{end}" for end in (".safetensors", "_scores.csv", "_samples.csv")
    )
    options = (*budget, "--seed", str(seed))
    run("fit", files["train"], "--valid", files["valid"], "-o", model, *options)
    run("score", model, files["test"], "-o", scores)
    judge_table(files, scores)
    run("sample", model, "-n", len(read_table(files["test"])), "-o", samples)
    run("plot", model, "marginals", "-o", out / f"{TABLE}_marginals.png", "--data", files["test"])
    run("plot", model, "history", "-o", out / f"{TABLE}_history.png")
    draw_pairs(read_table(files["test"]), read_table(samples), out / f"{TABLE}_pairs.png")


def judge_table(files: dict[str, Path], scores: Path) -> None:
    """Print held-out NLL of the flow beside those of Gaussians on the same rows."""
    train, valid, test = (read_table(file).to_numpy() for file in files.values())
    flow = -read_table(scores)["log_prob"].to_numpy()
    # Scaled for the fit, as a mixture's regularization is absolute; back in the file's units for
    # the score.
    scale = train.std(0)
    train, valid, test = (rows / scale for rows in (train, valid, test))
    mixtures = [GaussianMixture(k, random_state=0).fit(train) for k in COMPONENTS]
    best = max(mixtures, key=lambda mixture: mixture.score(valid))
    jacobian = np.log(scale).sum()
    one, many = (jacobian - mixture.score_samples(test) for mixture in (mixtures[0], best))
    print(
        f"\nOn the {len(test):,} test rows, in nats and the units of the file (lower is better):"
    )
    print(f"  one Gaussian               {summary(one)}")
    print(
        f"  mixture of {best.n_components:3} Gaussians   {summary(many)}   (components chosen on valid rows)"
    )
    print(f"  flow                       {summary(flow)}")
    print(f"  flow less mixture          {summary(flow - many)}   (row by row)")


def draw_pairs(data: pd.DataFrame, samples: pd.DataFrame, file: Path) -> None:
    """Test rows and samples in a few of the columns."""
    axes = plotting.pairs(data[SHOWN].to_numpy(), samples[SHOWN].to_numpy(), names=SHOWN)
    plotting.save(axes.flat[0].figure, file)


def farewell(out: Path, start: float) -> None:
    """List what was written, and what to try next."""
    title(f"Done in {time.perf_counter() - start:.0f} s; files in {out}")
    for file in sorted(out.iterdir()):
        print(f"  {file.name:<32}{file.stat().st_size / 1024:>9,.0f} kB")
    print("\nTry next:")
    print("  cnf fit toy:pinwheel -o pinwheel.safetensors --seconds 60")
    print("  cnf plot pinwheel.safetensors density -o pinwheel.gif")
    print(f"  cnf info {shlex.quote(str(out / f'{TABLE}.safetensors'))}")
    print("  cnf fit your.csv -o your.safetensors")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to write to")
    parser.add_argument("--seconds", type=float, default=60, help="budget of each of the two fits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a trial run of a few seconds")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    start, seed = time.perf_counter(), options.seed
    budget, points, film = ("--seconds", f"{options.seconds:g}"), 20_000, "density"
    if options.quick:  # a second would leave the flow near the mixture that it starts from
        budget, points, film = ("--steps", "30"), 2_000, "trajectories"
    title(f"1. A toy with a known density: {TOY}")
    toy(options.out, budget=budget, rows=points, film=film, seed=seed)
    title("2. A table: 30 measurements of 569 tumours")
    table(options.out, budget=budget, seed=seed)
    farewell(options.out, start)


if __name__ == "__main__":
    main()
