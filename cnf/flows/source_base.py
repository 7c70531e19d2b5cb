"""A flow as the base of another: the density of source rows."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from cnf.flows.bases import Base
from cnf.flows.flow import CNF
from cnf.flows.loading import build
from cnf.flows.serialization import describe
from cnf.registry import described, rebuild, register
from cnf.transforms import Transform


@register
class SourceBase(Base):
    """The density p₀ of a fitted flow, in the model coordinates z = T(x) of another one.

    log p(z) = log p₀(x) − log |det ∂z/∂x| with x = T⁻¹(z), so that a flow with this base carries
    rows of one table to rows of another, with an exact density at both ends. The weights of p₀ are
    not trained.

    Args:
        source: the fitted flow, without a context; a copy is kept.
        transform: T, the `preprocess` of the flow with this base; a copy is kept.

    Raises:
        ValueError: for a source with a context, or another number of columns than the transform.

    Example:
        >>> from cnf.transforms import Affine
        >>> base = SourceBase(CNF(dim=2), Affine(torch.ones(2), 2 * torch.eye(2)))
        >>> base.log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    solves = True

    def __init__(self, source: CNF, transform: Transform) -> None:
        super().__init__(source.dim)
        if source.context_dim or transform.dim != source.dim:
            raise ValueError(
                f"source: expected a flow over {transform.dim} columns without a context; got dim="
                f"{source.dim}, context_dim={source.context_dim}"
            )
        self.source = copy.deepcopy(source).eval().requires_grad_(requires_grad=False)
        self.transform = copy.deepcopy(transform)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (*batch,) of z (*batch, dim).

        If it is differentiated, as in training, there is one solve without re-solves.
        """
        x = self.transform.inverse(z.double())
        ladj = self.transform(x)[1]
        training = torch.is_grad_enabled() and z.requires_grad
        source = self.source.bind(tolerance=math.inf if training else None)
        return (source.log_prob(x) - ladj).to(z.dtype)

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draws (*shape, dim)."""
        x = self.source.sample(shape, generator=generator, dtype=torch.float64)
        return self.transform(x)[0].to(device, dtype or torch.get_default_dtype())

    def config(self) -> dict[str, Any]:
        """The two parts, ready for JSON."""
        source = {**describe(self.source), "metadata": {}}
        return {"source": source, "transform": described(self.transform)}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int) -> SourceBase:
        """The base that `config` described; its tensors come with the weights."""
        return cls(build(config["source"]), rebuild(Transform, config["transform"], dim))

    def require_drawable(self) -> None:
        """Raise a ValueError if the tensors of a file do not define a density."""
        self.source.base.require_drawable()

    def describe(self) -> str:
        """The base in words."""
        return "density of the source"
