"""Places as densities
===================

US postal codes, and ship soundings off Baja California.

Run it with::

    CNF_SHARED_DATA=... python scripts/point_maps.py --out figures

The script fits the longitudes and latitudes of two tables (us_zipcodes, baja_bathymetry) in the folder
CNF_SHARED_DATA. It prints the held-out NLL and that of a Gaussian mixture, in nats per row, and writes
point_maps.png, the points beside the density. Without that folder, or with --quick, it uses the moons.
"""

# sphinx_gallery_thumbnail_path = "../figures/point_maps.png"
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import cnf
from cnf import plotting
from cnf.datasets import TOYS
from cnf.plotting.style import INK, styled
from cnf.report.baselines import compare
from cnf.report.data import report_data
from cnf.rows import Rows

TABLES = {"us_zipcodes": "US postal codes", "baja_bathymetry": "soundings off Baja California"}
DEGREES = ["longitude (°)", "latitude (°)"]
JUDGED = 5000  # held-out rows that the printed numbers rest on
SHOWN = 20_000


def places(name: str) -> tuple[Tensor, Tensor]:
    """Longitude and latitude of the rows to learn from and of those held out."""
    folder = Path(os.environ["CNF_SHARED_DATA"], name)
    with np.load(folder / "data.npz", allow_pickle=False) as table:
        x = torch.from_numpy(table["X"][:, :2]).double()
        return x[table["idx_train"]], x[table["idx_test"]][:JUDGED]


def stand_in(seed: int) -> tuple[Tensor, Tensor]:
    """Rows of the moons, where the tables are not at hand."""
    x = TOYS["moons"].sample(3000, torch.Generator().manual_seed(seed)).double()
    return x[:2500], x[2500:]


def learn(x: Tensor, *, steps: int, seed: int) -> cnf.CNF:
    """A flow fitted to places."""
    flow = cnf.CNF(dim=2)
    cnf.fit(flow, x, seed=seed, steps=steps)
    return flow.double()


@torch.no_grad()
def report(flow: cnf.CNF, train: Tensor, test: Tensor, name: str) -> None:
    """Print what held-out rows say of the flow and of a mixture."""
    ours, mixture, _ = compare(report_data(flow, Rows(test), Rows(train), DEGREES))
    print(
        f"{name}: held-out NLL {ours.nll:.4f} ± {ours.error:.4f} nats a row, {len(test):,} rows;"
        f" {mixture.name} {mixture.behind:.4f} ± {mixture.behind_error:.4f} behind"
    )


@styled
@torch.no_grad()
def draw(flows: dict[str, cnf.CNF], tables: dict[str, Tensor], *, resolution: int) -> Figure:
    """A row for each table: its points, the density, and the logarithm of the density."""
    page, axes = plotting.figure(len(flows), 3, panel=(2.9, 2.1))
    for row, (name, flow) in zip(axes, flows.items()):
        x = tables[name]
        box = plotting.limits(x, quantiles=(0.0005, 0.9995), margin=0.04)
        row[0].scatter(*x[:SHOWN].T, s=0.25, color=INK, linewidths=0, rasterized=True)
        plotting.density(flow.log_prob, box, ax=row[1], resolution=resolution, names=DEGREES)
        plotting.density(
            flow.log_prob, box, ax=row[2], resolution=resolution, log=True, names=DEGREES
        )
        row[0].set(xlim=box[0], ylim=box[1], aspect=row[1].get_aspect())
        row[0].set(xlabel=DEGREES[0], ylabel=DEGREES[1])
        titles = (
            f"{TABLES.get(name, name)}: {len(x):,} points",
            "density",
            "log-density, down to −10 nats",
        )
        for ax, title in zip(row, titles):
            ax.set_title(title)
        for ax in row[1:]:
            ax.set_ylabel("")
    return page


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to")
    parser.add_argument("--steps", type=int, default=2000, help="training steps of each fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a trial run of a few seconds")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    at_hand = "CNF_SHARED_DATA" in os.environ and not options.quick
    splits = (
        {name: places(name) for name in TABLES} if at_hand else {"moons": stand_in(options.seed)}
    )
    flows = {}
    for name, (train, test) in splits.items():
        flows[name] = learn(
            train, steps=100 if options.quick else options.steps, seed=options.seed
        )
        report(flows[name], train, test, name)
    tables = {name: train for name, (train, _) in splits.items()}
    page = draw(flows, tables, resolution=40 if options.quick else 220)
    plotting.save(page, options.out / "point_maps.png")


if __name__ == "__main__":
    main()
