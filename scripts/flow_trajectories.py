"""A flow on its way
=================

Fit a toy and watch the flow: particles, velocity and density between base and data.

Run it with::

    python scripts/flow_trajectories.py --toy pinwheel --out figures

The script prints the gap to the exact density. It writes flow_trajectories.png, the paths of particles
with density and velocity at four times, and the animation flow_trajectories.gif."""

# sphinx_gallery_thumbnail_path = "../figures/flow_trajectories.png"
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from toy_flows import density_at, fitted_from_noise, print_gap

import cnf
from cnf import plotting
from cnf.datasets import TOYS, Toy
from cnf.plotting.style import INK, styled

TIMES = (0.0, 0.4, 0.7, 1.0)
Box = tuple[tuple[float, float], ...]


def base_points(flow: cnf.CNF, count: int, seed: int) -> Tensor:
    """Particles at t = 0."""
    return flow.sample_base(count, generator=torch.Generator().manual_seed(seed))


def frame_of(path: Tensor) -> Box:
    """Limits that hold nearly all particles at all times."""
    return plotting.limits(path.flatten(0, 1), margin=0.03)


@styled
@torch.no_grad()
def draw(flow: cnf.CNF, toy: Toy, *, resolution: int, seed: int) -> Figure:
    """The ways of particles, large, beside density and velocity through time."""
    page, axes = plotting.figure(2, len(TIMES) + 2, panel=(1.45, 1.55))
    clock = torch.linspace(0, 1, 101)
    path = flow.trajectory(base_points(flow, 2000, seed), clock)
    box = frame_of(path)
    large = spread(page, axes)
    plotting.trajectories(path[:, :250], ax=large, times=clock)
    large.set(xlim=box[0], ylim=box[1])
    large.set_title(f"{toy.name}: particles from base (rings) to data (dots)")
    for t, (above, below) in zip(TIMES, axes.T[2:]):
        plotting.density(density_at(flow, t), box, ax=above, resolution=resolution)
        below.scatter(*path[round(100 * t), :800].T, s=1.6, color=INK, linewidths=0, zorder=3)
        plotting.field(
            lambda x, t=t: flow.velocity(t, x), box, ax=below, kind="streamlines", resolution=30
        )
        above.set_title(f"t = {t:g}")
    for ax in (large, *axes[:, 2:].flat):
        ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
        ax.spines[:].set(visible=True, color="#cccccc")
    for ax, name in zip(axes[:, 2], ("density", "velocity and particles")):
        ax.set_ylabel(name)
    return page


def spread(page: Figure, axes: Sequence[Sequence[Axes]]) -> Axes:
    """One square of axes in the place of the two columns at the left."""
    grid = axes[0, 0].get_gridspec()
    for ax in axes[:, :2].flat:
        ax.remove()
    return page.add_subplot(grid[:, :2])


@torch.no_grad()
def film(flow: cnf.CNF, file: Path, *, frames: int, resolution: int, seed: int) -> None:
    """Particles over the density, from base to data and back."""
    clock = torch.linspace(0, 1, 25)
    path = flow.trajectory(base_points(flow, 600, seed), clock)
    box = frame_of(path)
    grids = [
        plotting.density_grid(density_at(flow, t), box, resolution=resolution)
        for t in clock.tolist()
    ]
    images = torch.stack([torch.from_numpy(grid) for grid in grids])
    plotting.flow_animation(
        path, clock, file, limits=box, density_frames=images, frames=frames, size=(3.2, 3.2)
    )


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to")
    parser.add_argument("--toy", choices=TOYS, default="pinwheel")
    parser.add_argument("--seconds", type=float, default=60, help="budget of the fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a trial run of a few seconds")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    toy, seed = TOYS[options.toy], options.seed
    flow = fitted_from_noise(toy, seconds=1 if options.quick else options.seconds, seed=seed)
    print_gap(flow, toy, seed=seed)
    frames, coarse, fine = (20, 16, 24) if options.quick else (48, 80, 150)
    plotting.save(
        draw(flow, toy, resolution=fine, seed=seed), options.out / "flow_trajectories.png"
    )
    film(flow, options.out / "flow_trajectories.gif", frames=frames, resolution=coarse, seed=seed)


if __name__ == "__main__":
    main()
