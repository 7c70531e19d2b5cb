"""The divergence tr ∂v/∂x of a velocity field: exact, or estimated by random probes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cnf.fields import BoundField, FieldAt
from cnf.functional import transformed

Velocity = Callable[[Tensor], Tensor]
# From a field at one time and x to v (*batch, dim) and the divergence (*batch,).
Divergence = Callable[[FieldAt, Tensor], tuple[Tensor, Tensor]]

AUTO = "auto"
# Up to here the exact divergence of a field without a closed form is used in training too.
MODERATE_DIM = 16


@dataclass(frozen=True)
class Hutchinson:
    """The estimate (1/k) Σ εᵢᵀ (∂v/∂x) εᵢ with random probes ε of unit covariance (Hutchinson
    1989).

    Args:
        probes: k, at least 1; the estimates are averaged.
        noise: "rademacher" (signs, the smaller variance) or "gaussian".

    Raises:
        ValueError: for no probe or unknown noise.

    Example:
        >>> Hutchinson(probes=2).draw(torch.zeros(5, 3)).shape
        torch.Size([2, 5, 3])
    """

    probes: int = 1
    noise: Literal["rademacher", "gaussian"] = "rademacher"

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise ValueError(f"probes: expected at least 1; got {self.probes}")
        if self.noise not in ("rademacher", "gaussian"):
            raise ValueError(f"noise: expected rademacher or gaussian; got {self.noise!r}")

    def draw(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Probes (k, *batch, dim) for one solve; they must not change while it runs."""
        shape = (self.probes, *x.shape)
        if self.noise == "gaussian":
            return torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)
        signs = torch.randint(0, 2, shape, generator=generator, device=x.device)
        return (2 * signs - 1).to(x.dtype)


def exact_divergence(velocity: Velocity, x: Tensor) -> tuple[Tensor, Tensor]:
    """v (*batch, dim) and tr ∂v/∂x (*batch,) by one batched vector-Jacobian product with the unit
    vectors.

    Example:
        >>> exact_divergence(lambda x: x**2, torch.tensor([[1.0, 2.0]]))[1].item()
        6.0
    """
    unit = torch.eye(x.shape[-1], device=x.device, dtype=x.dtype)
    probes = unit.reshape(-1, *[1] * (x.dim() - 1), x.shape[-1]).expand(-1, *x.shape)
    v, products = _vector_jacobian(velocity, x, probes)
    return v, (products * probes).sum((0, -1))


def estimated_divergence(velocity: Velocity, x: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    """v (*batch, dim) and the mean of εᵀ (∂v/∂x) ε over the probes ε (k, *batch, dim)."""
    v, products = _vector_jacobian(velocity, x, probes)
    return v, (products * probes).sum(-1).mean(0)


def choose_divergence(
    bound: BoundField,
    divergence: Hutchinson | str,
    x: Tensor,
    generator: torch.Generator | None,
    *,
    training: bool,
) -> Divergence:
    """The method by which one solve from x computes the divergence, with its probes drawn.

    "auto" is the closed form if the field has one, else exact. If gradients are recorded for many
    columns, a Hutchinson estimate replaces the exact trace."""
    if divergence == AUTO and bound.closed_form:
        return _closed_form
    if divergence == AUTO and training and x.shape[-1] > MODERATE_DIM:
        divergence = Hutchinson()
    if isinstance(divergence, Hutchinson):
        probes = divergence.draw(x, generator)
        return lambda at, x: estimated_divergence(at.velocity, x, probes)
    return lambda at, x: exact_divergence(at.velocity, x)


def _closed_form(at: FieldAt, x: Tensor) -> tuple[Tensor, Tensor]:
    assert at.velocity_and_divergence is not None, "the field promises a closed form"
    return at.velocity_and_divergence(x)


def _vector_jacobian(velocity: Velocity, x: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    """v and the products εᵀ ∂v/∂x (k, *batch, dim), differentiable again where a derivative may be
    asked.

    Solvers call this with and without gradients enabled; where they are off, x may still claim to
    require one, so it is taken out of its graph."""
    # Nothing would be recorded, and the divergence would seem zero.
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "this field's divergence needs autograd: use torch.no_grad(), not inference_mode()"
        )
    if transformed():
        v, pull_back = torch.func.vjp(velocity, x)[:2]
        return v, torch.func.vmap(pull_back)(probes)[0]
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        point = x if keep and x.requires_grad else x.detach().requires_grad_()
        v = velocity(point)
        if not v.requires_grad:  # a field that does not depend on x
            return v, torch.zeros_like(probes)
        (products,) = torch.autograd.grad(
            v, point, probes, is_grads_batched=True, create_graph=keep, retain_graph=True,
            allow_unused=True, materialize_grads=True,
        )  # fmt: skip
    return (v, products) if keep else (v.detach(), products.detach())
