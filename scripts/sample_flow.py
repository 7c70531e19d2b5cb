"""Samples beside data
===================

Fit a toy, draw samples, and compare them with the data by eye, by speed and by a two-sample
statistic.

Run it with::

    python scripts/sample_flow.py --toy 2spirals --out figures
    python scripts/sample_flow.py --toy 2spirals --model 2spirals.safetensors

The script prints samples per second, and the squared energy distance between samples and data beside
that between two data sets, which has mean zero. It writes sample_flow.png."""

# sphinx_gallery_thumbnail_path = "../figures/sample_flow.png"
from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from toy_flows import fitted

import cnf
from cnf import plotting
from cnf.datasets import TOYS, Toy
from cnf.plotting.style import DATA, styled
from cnf.tables import load_table_flow

SHOWN, COMPARED = 5_000, 2_000


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|X − Y| − E|X − X′| − E|Y − Y′|, zero for equal distributions only (Székely & Rizzo
    2004).

    Pairs of a row with itself are left out: the estimate has no bias, and may be below zero.
    """
    within = [torch.pdist(rows).mean().item() for rows in (x, y)]
    return 2 * torch.cdist(x, y).mean().item() - sum(within)


def repeated(draw: Callable[[], float], times: int) -> tuple[float, float]:
    """Mean of repeated draws and its standard error."""
    values = torch.tensor([draw() for _ in range(times)])
    return values.mean().item(), (values.std() / times**0.5).item()


@torch.no_grad()
def time_sampling(flow: cnf.CNF, generator: torch.Generator, *, rows: int, times: int) -> Tensor:
    """Samples per second of repeated calls (times,), slowest first."""
    rates = []
    for _ in range(times):
        start = time.perf_counter()
        flow.sample((rows,), generator=generator)
        rates.append(rows / (time.perf_counter() - start))
    return torch.tensor(rates).sort().values


@torch.no_grad()
def report(flow: cnf.CNF, toy: Toy, generator: torch.Generator, *, times: int) -> None:
    """Print the speed, and how far samples are from data."""

    def data() -> Tensor:
        return toy.sample(COMPARED, generator)

    def samples() -> Tensor:
        return flow.sample((COMPARED,), generator=generator)

    rates = time_sampling(flow, generator, rows=20_000, times=times)
    print(
        f"samples per second   {rates.median():,.0f}   (from {rates[0]:,.0f} to {rates[-1]:,.0f};"
        f" {times} runs on one thread)"
    )
    print(
        f"energy distance      mean of {times} comparisons of {COMPARED:,} with {COMPARED:,} rows ± s.e."
    )
    for name, one in (("samples and data", samples), ("data and data", data)):
        mean, error = repeated(lambda one=one: energy_distance(one(), data()), times)
        print(f"  {name:<18} {mean:+.5f} ± {error:.5f}")


@styled
@torch.no_grad()
def draw(flow: cnf.CNF, toy: Toy, generator: torch.Generator) -> Figure:
    """Data and samples side by side in one frame."""
    page, axes = plotting.figure(1, 2)
    data = toy.sample(SHOWN, generator)
    box = plotting.limits(data, margin=0.1)
    plotting.samples(data, ax=axes[0, 0], limits=box, size=2, color=DATA)
    plotting.samples(flow.sample((SHOWN,), generator=generator), ax=axes[0, 1], limits=box, size=2)
    for ax, title in zip(axes[0], (f"{toy.name}: data", "samples of the flow")):
        ax.set_title(title)
    axes[0, 1].set_ylabel("")
    return page


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to")
    parser.add_argument("--toy", choices=TOYS, default="2spirals")
    parser.add_argument("--model", type=Path, help="file of a flow already fitted to the toy")
    parser.add_argument("--seconds", type=float, default=60, help="budget of the fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a trial run of a few seconds")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    toy = TOYS[options.toy]
    seconds = 1 if options.quick else options.seconds
    flow = (
        fitted(toy, seconds=seconds, seed=options.seed)
        if options.model is None
        else load_table_flow(options.model).flow
    )
    generator = torch.Generator().manual_seed(options.seed + 1_000_000)
    report(flow, toy, generator, times=3 if options.quick else 10)
    plotting.save(draw(flow, toy, generator), options.out / "sample_flow.png")


if __name__ == "__main__":
    main()
