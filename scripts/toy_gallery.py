"""Every kind of picture for the eight toys
========================================

One row of pictures for each toy.

Run it with::

    python scripts/toy_gallery.py --out figures

The script fits each toy and prints the gap to its exact density. It writes toy_gallery.png: data, the
density at several times between base and data, contours, particles colored by their log-density, and the
velocity at half time.
"""

# sphinx_gallery_thumbnail_path = "../figures/toy_gallery.png"
from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from palette import shrink
from toy_flows import density_at, fitted_from_noise, print_gap

import cnf
from cnf import plotting
from cnf.datasets import TOYS, Toy
from cnf.plotting.style import INK, styled

TIMES = (0.0, 0.4, 0.7, 1.0)
PARTICLES = 150
Box = tuple[tuple[float, float], ...]


@styled
@torch.no_grad()
def draw(flows: dict[str, cnf.CNF], *, resolution: int, seed: int) -> Figure:
    """A row of pictures for each toy."""
    page, axes = plotting.figure(len(flows), len(TIMES) + 4, panel=(1.05, 1.05))
    for row, (name, flow) in zip(axes, flows.items()):
        draw_toy(row, flow, TOYS[name], resolution=resolution, seed=seed)
        row[0].set_ylabel(name)
    titles = "data", *(f"t = {t:g}" for t in TIMES), "regions", "particles", "velocity, t = 0.5"
    for ax, title in zip(axes[0], titles):
        ax.set_title(title)
    return page


def draw_toy(row: Sequence[Axes], flow: cnf.CNF, toy: Toy, *, resolution: int, seed: int) -> None:
    """Data, densities, contours, particles and velocity of one toy, inside the same limits."""
    x = toy.sample(4000, torch.Generator().manual_seed(seed))
    start = flow.sample_base(PARTICLES, generator=torch.Generator().manual_seed(seed))
    clock = torch.linspace(0, 1, 33)
    path, log_prob = flow.trajectory_and_log_prob(start, clock)
    box = plotting.limits(torch.cat([x, path.flatten(0, 1)]), margin=0.05)
    row[0].scatter(*x.T, s=0.3, color=INK, linewidths=0)
    for ax, t in zip(row[1:], TIMES):
        plotting.density(density_at(flow, t), box, ax=ax, resolution=resolution)
    plotting.density(
        density_at(flow, 1.0), box, ax=row[-3], kind="contours", resolution=resolution
    )
    plotting.trajectories(path, ax=row[-2], color=log_prob)
    plotting.field(partial(flow.velocity, 0.5), box, ax=row[-1], kind="streamlines", resolution=24)
    bare(row, box)


def bare(row: Sequence[Axes], box: Box) -> None:
    """A thin frame without numbers: the pictures say what there is to see."""
    for ax in row:
        ax.set(xlim=box[0], ylim=box[1], aspect="auto", xticks=[], yticks=[], xlabel="", ylabel="")
        ax.spines[:].set(visible=True, color="#cccccc")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to")
    parser.add_argument("--seconds", type=float, default=60, help="budget of each fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a trial run of a few seconds")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    names = [name for name, toy in TOYS.items() if toy.entropy is not None]
    flows = {}
    for name in names[:2] if options.quick else names:
        seconds = 0.5 if options.quick else options.seconds
        flows[name] = fitted_from_noise(TOYS[name], seconds=seconds, seed=options.seed)
        print_gap(flows[name], TOYS[name], seed=options.seed)
    page = draw(flows, resolution=12 if options.quick else 90, seed=options.seed)
    picture = options.out / "toy_gallery.png"
    plotting.save(page, picture)
    shrink(picture)


if __name__ == "__main__":
    main()
