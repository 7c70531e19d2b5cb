"""Products of bases, for columns of several kinds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnf.fields.geometry import Geometry
from cnf.flows.bases import Base, NormalBase
from cnf.flows.periodic_bases import UniformCircleBase, UniformSphereBase
from cnf.registry import described, rebuild, register


@register
class ProductBase(Base):
    """Independent blocks of columns, one after another: log p(z) = Σ log pᵢ(zᵢ).

    Args:
        parts: the base of each block.

    Example:
        >>> ProductBase([NormalBase(2), UniformCircleBase(1)]).sample((5,)).shape
        torch.Size([5, 3])
    """

    parts: Sequence[Base]

    def __init__(self, parts: Sequence[Base]) -> None:
        super().__init__(sum(part.dim for part in parts))
        self.add_module("parts", nn.ModuleList(parts))

    def config(self) -> dict[str, Any]:
        """The blocks, ready for JSON."""
        return {"parts": [[part.dim, described(part)] for part in self.parts]}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int) -> ProductBase:
        """The product that `config` described."""
        return cls([rebuild(Base, part, columns) for columns, part in config["parts"]])

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (*batch,) of z (*batch, dim)."""
        blocks = z.split([part.dim for part in self.parts], -1)
        found = [part.log_prob(block) for part, block in zip(self.parts, blocks)]
        return torch.stack(found).sum(0)

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws (*shape, dim)."""
        return torch.cat(
            [part.sample(shape, generator, dtype=dtype, device=device) for part in self.parts], -1
        )

    def describe(self) -> str:
        """The base in words."""
        return ", ".join(part.describe() for part in self.parts)


def plain_base(geometry: Geometry) -> Base:
    """A standard normal for real columns, with uniform angles and unit vectors."""
    return product(
        NormalBase(geometry.reals) if geometry.reals else None,
        UniformCircleBase(geometry.angles) if geometry.angles else None,
        *(UniformSphereBase() for _ in range(geometry.spheres)),
    )


def product(*parts: Base | None) -> Base:
    """The product of the given parts; a single part is returned unchanged."""
    found = [part for part in parts if part is not None]
    return found[0] if len(found) == 1 else ProductBase(found)
