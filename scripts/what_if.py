"""A context swept
===============

A conditional flow shows the density of two columns for each value of a third one.

Run it with::

    CNF_SHARED_DATA=... python scripts/what_if.py --out figures

The script fits the colors g − r and r − i of galaxies given their redshift, from the folder
CNF_SHARED_DATA. It prints the held-out NLL and that of a Gaussian mixture given the redshift. It writes
what_if.png: the density of the colors at several redshifts, and the quantiles of each color as a function
of redshift. Without that folder, or with --quick, it uses an ellipse that turns with its context.
"""

# sphinx_gallery_thumbnail_path = "../figures/what_if.png"
from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import cnf
from cnf import plotting
from cnf.plotting.style import styled
from cnf.report.baselines import compare
from cnf.report.data import report_data
from cnf.rows import Rows

SHOWN = 5  # contexts whose density is drawn
SWEPT = 31
JUDGED = 4000


@dataclass(frozen=True)
class Table:
    """Rows to learn from and to validator by, and their names."""

    train: Rows
    test: Rows
    names: list[str]
    context: str


def galaxies() -> Table:
    """Colors given the redshift."""
    folder = Path(os.environ["CNF_SHARED_DATA"], "galaxy_photometry")
    with np.load(folder / "data.npz", allow_pickle=False) as data:
        z, _, g, r, i = torch.from_numpy(data["X"][:, :5]).double().T
        x, z = torch.stack([g - r, r - i], 1), z[:, None]
        parts = [Rows(x[data[name]], z[data[name]]) for name in ("idx_train", "idx_test")]
    return Table(parts[0], parts[1].take(torch.arange(JUDGED)), ["g − r", "r − i"], "redshift")


def turning_ellipse(rows: int, seed: int) -> Table:
    """A long normal density that turns by half a circle as its context goes from 0 to 1."""
    generator = torch.Generator().manual_seed(seed)
    c = torch.rand(rows, 1, generator=generator, dtype=torch.float64)
    z = torch.randn(rows, 2, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 0.2])
    cos, sin = (math.pi * c).cos()[:, 0], (math.pi * c).sin()[:, 0]
    x = torch.stack([cos * z[:, 0] - sin * z[:, 1], sin * z[:, 0] + cos * z[:, 1]], 1)
    whole, part = Rows(x, c), rows // 5
    train, test = whole.take(torch.arange(part, rows)), whole.take(torch.arange(part))
    return Table(train, test, ["a", "b"], "c")


@torch.no_grad()
def report(flow: cnf.CNF, table: Table) -> None:
    """Print what held-out rows say of the flow and of a mixture, both given the context."""
    ours, mixture, _ = compare(report_data(flow, table.test, table.train, table.names))
    print(
        f"held-out NLL {ours.nll:.4f} ± {ours.error:.4f} nats a row;"
        f" {mixture.name} {mixture.behind:.4f} ± {mixture.behind_error:.4f} behind"
    )


@styled
@torch.no_grad()
def draw(flow: cnf.CNF, table: Table, *, resolution: int, draws: int) -> Figure:
    """Densities at a row of contexts, over the quantiles of each column as the context is
    swept."""
    page, axes = plotting.figure(2, SHOWN, panel=(1.6, 1.7))
    seen = table.train.context[:, 0]
    levels = torch.linspace(0.1, 0.9, SHOWN, dtype=seen.dtype)
    box = plotting.limits(table.train.x, margin=0.1)

    def given(c: float) -> plotting.arrays.Function:
        return lambda x: flow.log_prob(x, torch.tensor([c], dtype=torch.float64))

    contexts = seen.quantile(levels).tolist()
    plotting.density_history(
        given,
        contexts,
        box,
        axes[0],
        symbol=table.context,
        resolution=resolution,
        names=table.names,
    )
    grid = axes[1, 0].get_gridspec()
    for ax in axes[1]:
        ax.remove()
    below = [page.add_subplot(grid[1, :2]), page.add_subplot(grid[1, 2:4])]
    values = torch.linspace(
        *seen.quantile(torch.tensor([0.02, 0.98]).double()).tolist(), SWEPT
    ).double()
    drawn = flow.sample((draws,), values[:, None], generator=torch.Generator().manual_seed(0))
    plotting.what_if(
        values, drawn.transpose(0, 1), context=table.context, names=table.names, axes=below
    )
    return page


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to")
    parser.add_argument("--steps", type=int, default=1000, help="training steps of the fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a trial run of a few seconds")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    at_hand = "CNF_SHARED_DATA" in os.environ and not options.quick
    table = galaxies() if at_hand else turning_ellipse(1000, options.seed)
    flow = cnf.CNF(dim=2, context_dim=1)
    steps = 20 if options.quick else options.steps
    cnf.fit(flow, table.train.x, context=table.train.context, seed=options.seed, steps=steps)
    flow.double()
    report(flow, table)
    resolution, draws = (10, 60) if options.quick else (80, 1500)
    page = draw(flow, table, resolution=resolution, draws=draws)
    plotting.save(page, options.out / "what_if.png")


if __name__ == "__main__":
    main()
