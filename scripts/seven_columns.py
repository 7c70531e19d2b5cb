"""Seven columns of galaxies
=========================

A table of seven columns in pairs, in slices, and as a motion.

Run it with::

    CNF_SHARED_DATA=... python scripts/seven_columns.py --out figures

The script fits 80,000 galaxies (redshift and six magnitudes) from the folder CNF_SHARED_DATA, and prints
the held-out NLL and that of a Gaussian mixture. It writes seven_columns_pairs.png (data and samples),
seven_columns_slices.png (log-densities along every column, and two columns given the others) and
seven_columns_flow.png (particles in two columns and in principal axes). Without that folder, or with
--quick, it uses columns of a bundled table.
"""

# sphinx_gallery_thumbnail_path = "../figures/seven_columns_flow.png"
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from palette import shrink
from torch import Tensor

import cnf
from cnf import plotting
from cnf.datasets.bundled import bundled_table
from cnf.plotting.style import styled
from cnf.report.baselines import compare
from cnf.report.data import report_data
from cnf.rows import Rows

COLUMNS = 7
JUDGED = 5000
PARTICLES = 250


def table(*, quick: bool) -> tuple[list[str], Tensor, Tensor]:
    """Names of the columns, rows to learn from, rows held out."""
    if "CNF_SHARED_DATA" in os.environ and not quick:
        folder = Path(os.environ["CNF_SHARED_DATA"], "galaxy_photometry")
        with np.load(folder / "data.npz", allow_pickle=False) as data:
            x = torch.from_numpy(data["X"]).double()
            return data["columns"].tolist(), x[data["idx_train"]], x[data["idx_test"]]
    frame = bundled_table("breast_cancer").iloc[:, :COLUMNS]
    x = torch.tensor(frame.to_numpy(), dtype=torch.float64)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return list(frame), x[order[100:]], x[order[:100]]


@torch.no_grad()
def report(flow: cnf.CNF, train: Tensor, test: Tensor, names: list[str]) -> None:
    """Print what held-out rows say of the flow and of a mixture."""
    ours, mixture, _ = compare(report_data(flow, Rows(test[:JUDGED]), Rows(train), names))
    print(
        f"held-out NLL {ours.nll:.4f} ± {ours.error:.4f} nats a row;"
        f" {mixture.name} {mixture.behind:.4f} ± {mixture.behind_error:.4f} behind"
    )


@torch.no_grad()
def draw_pairs(flow: cnf.CNF, test: Tensor, names: list[str]) -> Figure:
    """Held-out rows below the diagonal, as many samples above it."""
    drawn = flow.sample((len(test),), generator=torch.Generator().manual_seed(0))
    return plotting.pairs(test, drawn, names=names)[0, 0].figure


@styled
@torch.no_grad()
def draw_slices(flow: cnf.CNF, test: Tensor, names: list[str], *, resolution: int) -> Figure:
    """Log-densities along every column through three rows, and the first two columns given the
    others."""
    page, axes = plotting.figure(2, COLUMNS, panel=(1.45, 1.7))
    last = axes[1]
    limits = plotting.limits(test)
    ranks = test[:, 0].argsort()[torch.tensor([0.1, 0.35, 0.6, 0.85]).mul(len(test)).long()]
    plotting.slices(
        flow.log_prob, test[ranks[:3]], limits, names=names, axes=axes[0], resolution=resolution
    )
    for ax in axes[0, 1:]:
        ax.set_ylabel("")
    grid = last[0].get_gridspec()
    for ax in last:
        ax.remove()
    for k, row in enumerate(test[ranks[:3]]):
        ax = page.add_subplot(grid[1, 2 * k : 2 * k + 2])
        plotting.conditional(
            flow.log_prob,
            row,
            limits[:2],
            columns=(0, 1),
            ax=ax,
            names=names,
            resolution=resolution // 4,
        )
    return page


@styled
@torch.no_grad()
def draw_flow(flow: cnf.CNF, names: list[str]) -> Figure:
    """Particles in two columns and in principal axes, colored by the log-density where they
    are."""
    page, axes = plotting.figure(1, 2, panel=(3.3, 3.0))
    start = flow.sample_base(PARTICLES, generator=torch.Generator().manual_seed(0))
    path, log_prob = flow.trajectory_and_log_prob(start, torch.linspace(0, 1, 41))
    plotting.trajectories(path, ax=axes[0, 0], color=log_prob, columns=(0, 1), names=names)
    plotting.trajectories(
        path,
        ax=axes[0, 1],
        color=log_prob,
        columns="principal",
        names=names,
        bar="log-density (nats)",
    )
    return page


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to")
    parser.add_argument("--steps", type=int, default=3000, help="training steps of the fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a trial run of a few seconds")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    names, train, test = table(quick=options.quick)
    flow = cnf.CNF(dim=COLUMNS)
    cnf.fit(flow, train, seed=options.seed, steps=20 if options.quick else options.steps)
    flow.double()
    report(flow, train, test, names)
    resolution = 40 if options.quick else 400
    pairs = options.out / "seven_columns_pairs.png"
    plotting.save(draw_pairs(flow, test, names), pairs)
    shrink(pairs)
    plotting.save(
        draw_slices(flow, test, names, resolution=resolution),
        options.out / "seven_columns_slices.png",
    )
    plotting.save(draw_flow(flow, names), options.out / "seven_columns_flow.png")


if __name__ == "__main__":
    main()
