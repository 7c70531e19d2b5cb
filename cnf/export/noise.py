"""Draws of a base from standard normal numbers, which are the input of a program."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor

from cnf.fields.geometry import unit
from cnf.flows import Base, ContaminatedBase, MixtureBase, NormalBase, StudentTBase
from cnf.flows.periodic_bases import UniformCircleBase, UniformSphereBase
from cnf.flows.product_base import ProductBase
from cnf.transforms.normal import ndtr


class Drawing(NamedTuple):
    """How a base is drawn.

    Attributes:
        width: standard normal numbers that a draw takes.
        draw: makes draws (rows, dim) of them (rows, width), in their dtype.
    """

    width: int
    draw: Callable[[Tensor], Tensor]


@singledispatch
def drawing(base: Base) -> Drawing:
    """How a base is drawn from standard normal numbers; register a function for one of your own.

    Raises:
        ValueError: for a base that has no such function.

    Example:
        >>> base = MixtureBase(torch.ones(2), torch.tensor([[-9.0], [9.0]]), torch.ones(2, 1, 1))
        >>> drawing(base).draw(torch.tensor([[0.5, -3.0], [0.5, 3.0]]))
        tensor([[-8.5000],
                [ 9.5000]])
    """
    raise ValueError(
        f"base: expected one that transforms normal draws; got {base.describe()}:"
        " export its scores alone, or register a function with cnf.export.noise.drawing"
    )


@drawing.register
def _normal(base: NormalBase) -> Drawing:
    return Drawing(base.dim, lambda noise: noise)


@drawing.register
def _student(base: StudentTBase) -> Drawing:
    """Bailey's polar method, of the squared radius and the angle of uniform numbers."""

    def draw(noise: Tensor) -> Tensor:
        u, v = ndtr(noise.double()).split(base.dim, -1)
        radius = (base.df * (u ** (-2 / base.df) - 1)).sqrt()
        return (base.scale * radius * torch.cos(2 * math.pi * v)).to(noise.dtype)

    return Drawing(2 * base.dim, draw)


@drawing.register
def _mixture(base: MixtureBase) -> Drawing:
    """The last number chooses the component."""

    def draw(noise: Tensor) -> Tensor:
        ends = base.weights.double().cumsum(0)[:-1]
        chosen = (ndtr(noise[:, -1:].double()) > ends).sum(-1)
        spread = (base.factors[chosen] * noise[:, None, :-1]).sum(-1)
        return base.means[chosen] + spread

    return Drawing(base.dim + 1, draw)


@drawing.register
def _contaminated(base: ContaminatedBase) -> Drawing:
    """Numbers of the base inside, of the heavy tails, and last of the choice between them."""
    inside, heavy = drawing(base.base), base.dim + base.df

    def draw(noise: Tensor) -> Tensor:
        others, normal, choice = noise.split([inside.width, heavy, 1], -1)
        spread = normal[:, base.dim :].square().mean(-1, keepdim=True).sqrt()
        tails = normal[:, : base.dim] / spread
        return tails.where(ndtr(choice.double()) < base.share, inside.draw(others))

    return Drawing(inside.width + heavy + 1, draw)


@drawing.register
def _circle(base: UniformCircleBase) -> Drawing:
    return Drawing(base.dim, lambda noise: (2 * ndtr(noise) - 1) * math.pi)


@drawing.register
def _sphere(base: UniformSphereBase) -> Drawing:
    return Drawing(3, lambda noise: unit(noise)[0])


@drawing.register
def _product(base: ProductBase) -> Drawing:
    parts = [drawing(part) for part in base.parts]
    widths = [part.width for part in parts]

    def draw(noise: Tensor) -> Tensor:
        blocks = noise.split(widths, -1)
        return torch.cat([part.draw(block) for part, block in zip(parts, blocks)], -1)

    return Drawing(sum(widths), draw)
