"""The eight planar toy densities of the literature on continuous flows, each with its exact
log-density.

The generators are those of FFJORD (Grathwohl et al. 2019), as continuous mixtures. Where the
original uses equally spaced angles (rings, circles, moons), they are drawn here, so that rows are
independent and have exactly the density that `log_prob` returns. The entropy of a toy is the
lowest negative log-likelihood that any model can reach on it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cnf.datasets.pinwheel import Pinwheel
from cnf.datasets.planar import BoxedCurves, Checkerboard, Curves, GaussianCircle, Rings, Toy


def _moons(t: Tensor) -> Tensor:
    upper = torch.stack((2 * t.cos() - 1, 2 * t.sin() - 0.2), dim=-1)
    lower = torch.stack((1 - 2 * t.cos(), 0.8 - 2 * t.sin()), dim=-1)
    return torch.stack((upper, lower), dim=-2)


def _spirals(t: Tensor) -> Tensor:
    arm = torch.stack((0.25 - t * t.cos(), 0.25 + t * t.sin()), dim=-1) / 3
    return torch.stack((arm, -arm), dim=-2)


def _swissroll(t: Tensor) -> Tensor:
    return torch.stack((t * t.cos(), t * t.sin()), dim=-1)[..., None, :] / 5


TOYS: dict[str, Toy] = {
    density.name: density
    for density in (
        Checkerboard("checkerboard", 3.46574),
        GaussianCircle("8gaussians", 2.83188, components=8, radius=4 / 1.414, scale=0.5 / 1.414),
        Pinwheel("pinwheel", 2.31779),
        BoxedCurves(
            "2spirals", 2.64545, _spirals, 0, 3 * math.pi, scale=0.1, power=1, box=0.25 / 3
        ),
        Rings("rings", 2.62318, radii=(3.0, 2.25, 1.5, 0.75), scale=0.08),
        Rings("circles", 3.26814, radii=(3.0, 1.5), scale=0.24),
        Curves("moons", 2.39388, _moons, 0, math.pi, scale=0.2),
        Curves("swissroll", 2.66965, _swissroll, 1.5 * math.pi, 4.5 * math.pi, scale=0.2),
    )
}


def toy(name: str) -> Toy:
    """Return the toy density called `name`; a ValueError for an unknown name lists the names.

    >>> toy("rings").entropy
    2.62318
    """
    if name not in TOYS:
        raise ValueError(f"no toy is called {name!r}: expected one of {', '.join(TOYS)}")
    return TOYS[name]
