"""Densities near to samples, from which integrals are drawn."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from cnf.diagnostics.local import center, spread, tangents
from cnf.fields import Geometry
from cnf.flows import MixtureBase
from cnf.flows.mixtures import fitted_mixture, mixture_base
from cnf.flows.periodic_bases import VonMisesBase, VonMisesFisherBase

COMPONENTS, KERNELS = 40, 512
# A proposal is wider than the samples it is fitted to; a tenth of it is wider still.
INFLATION, WIDE_SHARE, WIDE = 1.15, 0.1, 3.0


class Proposal(Protocol):
    """A density of model coordinates that can be drawn from."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Points (count, coordinates)."""

    def log_prob(self, points: Tensor) -> Tensor:
        """Log-density (rows,) of points (rows, coordinates)."""


def proposal(geometry: Geometry, y: Tensor, generator: torch.Generator) -> Proposal:
    """A proposal near to samples y (rows, coordinates)."""
    if geometry.flat:
        seed = torch.randint(2**31, (), generator=generator, device=y.device)
        return WideMixture(y, int(seed))
    return Kernels(geometry, y)


class WideMixture:
    """A mixture of Gaussians fitted to samples and widened, with one additional broad Gaussian."""

    def __init__(self, y: Tensor, seed: int) -> None:
        model = fitted_mixture(
            y.numpy(force=True),
            COMPONENTS,
            seed=seed,
            iterations=30,
            smallest=1e-4,
            tolerance=1e-2,
        )
        fitted = mixture_base(model, y.dtype, y.device)
        broad = torch.linalg.cholesky(WIDE * y.T.cov().reshape(1, y.shape[1], y.shape[1]))
        self.mixture = MixtureBase(
            torch.cat([(1 - WIDE_SHARE) * fitted.weights, y.new_tensor([WIDE_SHARE])]),
            torch.cat([fitted.means, y.mean(0, keepdim=True)]),
            torch.cat([math.sqrt(INFLATION) * fitted.factors, broad]),
        )

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Points (count, coordinates)."""
        means = self.mixture.means
        return self.mixture.sample((count,), generator, dtype=means.dtype, device=means.device)

    def log_prob(self, points: Tensor) -> Tensor:
        """Log-density (rows,) of points (rows, coordinates)."""
        return self.mixture.log_prob(points)


class Kernels:
    """Kernels around some samples: Gaussian in reals, von Mises in angles, von Mises-Fisher on
    spheres; with a broad density beside them, uniform on circles and spheres.

    Their widths are those of Silverman (1986, 4.14) for this number of kernels, widened.

    Example:
        >>> geometry = Geometry(reals=1, angles=1, spheres=1)
        >>> y = torch.cat([torch.zeros(9, 2), torch.tensor([[0.0, 0.0, 1.0]]).repeat(9, 1)], 1)
        >>> y = (y + torch.linspace(-0.1, 0.1, 9)[:, None]).double()
        >>> Kernels(geometry, y).draw(5, torch.Generator().manual_seed(0)).shape
        torch.Size([5, 5])
    """

    def __init__(self, geometry: Geometry, y: Tensor) -> None:
        self.geometry = geometry
        self.centers = y[torch.linspace(0, len(y) - 1, min(KERNELS, len(y))).long()]
        spreads = spread(geometry, y).split(
            (geometry.reals, geometry.angles, 2 * geometry.spheres)
        )
        dim = sum(map(len, spreads))
        scale = INFLATION * (4 / ((dim + 2) * len(self.centers))) ** (1 / (dim + 4))
        self.real_spread, self.angle_spread = scale * spreads[0], scale * spreads[1]
        self.vector_spread = scale * spreads[2].unflatten(0, (-1, 2)).square().mean(1).sqrt()
        self.middle = center(geometry, y)[0, : geometry.reals]
        self.broad = math.sqrt(WIDE) * spreads[0]
        self.log_uniform = -geometry.angles * math.log(2 * math.pi)
        self.log_uniform -= geometry.spheres * math.log(4 * math.pi)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Points (count, geometry.dim), the last tenth of them from the broad density."""
        wide = round(WIDE_SHARE * count)
        chosen = self.centers[torch.arange(count - wide) % len(self.centers)]
        near = self._near(chosen, generator)
        uniform = self._uniform(chosen.new_zeros(wide, chosen.shape[1]), generator)
        return torch.cat([near, uniform])

    def log_prob(self, points: Tensor) -> Tensor:
        """Log-density (rows,) of points (rows, geometry.dim)."""
        reals = self.geometry.split(points)[0]
        near = self._component_log_probs(points).logsumexp(-1) - math.log(len(self.centers))
        wide = _log_normal((reals - self.middle) / self.broad, self.broad) + self.log_uniform
        return torch.logaddexp(near + math.log1p(-WIDE_SHARE), wide + math.log(WIDE_SHARE))

    def _component_log_probs(self, points: Tensor) -> Tensor:
        reals, angles, vectors = self.geometry.split(points)
        real, angle, vector = self.geometry.split(self.centers)
        ones = real.new_ones(len(real))
        distances = (reals[:, None] - real) / self.real_spread
        found = _log_normal(distances, self.real_spread)
        found = found + VonMisesBase(
            ones, angle, self.angle_spread.expand_as(angle)
        ).component_log_probs(angles)
        for k, width in enumerate(self.vector_spread):
            base = VonMisesFisherBase(ones, vector[:, k], width.expand(len(vector)))
            found = found + base.component_log_probs(vectors[:, k])
        return found

    def _near(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        reals, angles, vectors = self.geometry.split(chosen)
        noise = torch.randn(
            reals.shape, generator=generator, dtype=reals.dtype, device=reals.device
        )
        turns = VonMisesBase(
            reals.new_ones(1), reals.new_zeros(1, angles.shape[1]), self.angle_spread[None]
        ).sample((len(angles),), generator, dtype=reals.dtype, device=reals.device)
        return self.geometry.join(
            reals + self.real_spread * noise, angles + turns, self._around(vectors, generator)
        )

    def _around(self, vectors: Tensor, generator: torch.Generator) -> Tensor:
        """Draws around unit vectors (rows, spheres, 3)."""
        pole, one = vectors.new_tensor([[0.0, 0.0, 1.0]]), vectors.new_ones(1)
        look: dict[str, Any] = {"dtype": vectors.dtype, "device": vectors.device}
        parts = [
            VonMisesFisherBase(one, pole, width[None]).sample((len(vectors),), generator, **look)
            for width in self.vector_spread
        ]
        drawn = torch.stack(parts, 1) if parts else vectors
        frame = torch.cat([tangents(vectors), vectors[..., None]], -1)
        return (frame @ drawn[..., None]).squeeze(-1)

    def _uniform(self, like: Tensor, generator: torch.Generator) -> Tensor:
        reals, angles, vectors = (
            torch.randn(part.shape, generator=generator, dtype=like.dtype, device=like.device)
            for part in self.geometry.split(like)
        )
        turn = torch.rand(angles.shape, generator=generator, dtype=like.dtype, device=like.device)
        directions = vectors / vectors.norm(dim=-1, keepdim=True)
        return self.geometry.join(
            self.middle + self.broad * reals, (2 * turn - 1) * math.pi, directions
        )


def _log_normal(standard: Tensor, spreads: Tensor) -> Tensor:
    """Log-density (…,) of independent normals with such spreads (dim,), at standardized values
    (…, dim)."""
    constant = spreads.log().sum() + 0.5 * len(spreads) * math.log(2 * math.pi)
    return -0.5 * standard.square().sum(-1) - constant
