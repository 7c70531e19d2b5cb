"""The interface of velocity fields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cnf.fields.geometry import Geometry
from cnf.registry import arguments

AT_REST = "velocity zero: the base is the density"  # of a field whose velocity is zero


class FieldAt(NamedTuple):
    """A bound field at one time: functions of x (*batch, dim) alone.

    Attributes:
        velocity: v (*batch, dim).
        velocity_and_divergence: v and tr ∂v/∂x (*batch,) in closed form; None if there is no
            closed form.
    """

    velocity: Callable[[Tensor], Tensor]
    velocity_and_divergence: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None


@dataclass(frozen=True)
class BoundField:
    """A field with its context and prepared weights, as one solve evaluates it.

    Attributes:
        at: the field at times (n, …), whose further axes are () or (*batch,). Everything that
            depends on time alone is computed for all times at once.
        closed_form: whether the divergence has a closed form.
        tensors: every tensor that the field reads and that may require a gradient, including the
            context. Tensors prepared from the weights replace them here: the graph of a solve ends
            at `tensors`.
    """

    at: Callable[[Tensor], Sequence[FieldAt]]
    closed_form: bool
    tensors: tuple[Tensor, ...]

    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        """v (*batch, dim) at one time t () or (*batch,)."""
        return self.at(t[None])[0].velocity(x)


class VelocityField(nn.Module, ABC):
    """A velocity field v(t, x, context) on `dim` columns; subclasses write `forward`.

    Args:
        dim: number of columns of x.
        context_dim: number of columns of the context; 0 for none.

    Example:
        >>> class Rotation(VelocityField):
        ...     def forward(self, t, x, context=None):
        ...         return torch.stack((-x[..., 1], x[..., 0]), -1)
        >>> Rotation(2)(torch.tensor(0.0), torch.tensor([1.0, 0.0]))
        tensor([-0., 1.])
    """

    def __init__(self, dim: int, context_dim: int = 0) -> None:
        super().__init__()
        if dim < 1 or context_dim < 0:
            raise ValueError(
                f"a field needs dim >= 1 and context_dim >= 0; got {dim} and {context_dim}"
            )
        self.dim = dim
        self.context_dim = context_dim

    @abstractmethod
    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity (*batch, dim) at times t () or (*batch,) and states x (*batch, dim)."""

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, except sizes, that rebuild the field; ready for JSON."""
        return arguments(self, "dim", "context_dim")

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int, context_dim: int) -> VelocityField:
        """The field that `config` described, with new weights."""
        return cls(dim, context_dim=context_dim, **config)

    @property
    def geometry(self) -> Geometry:
        """The space of x; a plane, unless a subclass has another."""
        return Geometry(self.dim)

    @property
    def resting(self) -> bool:
        """Whether the velocity is known to be zero at all points and times."""
        return False

    def describe(self) -> str:
        """The field in words."""
        return type(self).__name__

    def mask(self, context: Tensor | None) -> Tensor | None:
        """The columns that each row of the context has (*batch, dim); None if every row has all
        columns."""
        return None

    def bind(self, context: Tensor | None = None) -> BoundField:
        """The field for one context (*batch, context_dim), ready to be evaluated many times."""

        def at(times: Tensor) -> list[FieldAt]:
            return [at_time(t) for t in times.unbind()]

        def at_time(t: Tensor) -> FieldAt:
            return FieldAt(lambda x: self(t, x, context))

        given = () if context is None else (context,)
        return BoundField(at=at, closed_form=False, tensors=(*self.parameters(), *given))


def at_rest() -> BoundField:
    """A field whose velocity is zero."""
    still = FieldAt(torch.zeros_like, lambda x: (torch.zeros_like(x), x.new_zeros(x.shape[:-1])))
    return BoundField(at=lambda times: [still] * len(times), closed_form=True, tensors=())


class TimeFeatures(nn.Module):
    """Smooth features of time, (2t − 1, cos πt, sin πt, …, cos πkt, sin πkt), (*batch, 2k + 1).

    Args:
        frequencies: k; small, because a velocity that oscillates in time needs more solver steps.
    """

    def __init__(self, frequencies: int = 3) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.features = 2 * frequencies + 1

    def forward(self, t: Tensor) -> Tensor:
        """Features (*batch, 2k + 1) of times t (*batch,)."""
        multiples = torch.arange(1, self.frequencies + 1, device=t.device)
        angles = (torch.pi * t)[..., None] * multiples
        return torch.cat([2 * t[..., None] - 1, angles.cos(), angles.sin()], -1)


def with_context(features: Tensor, context: Tensor | None) -> Tensor:
    """Features of time (*batch, k) beside the context (*batch, context_dim), broadcast against
    each other."""
    if context is None:
        return features
    shape = torch.broadcast_shapes(features.shape[:-1], context.shape[:-1])
    return torch.cat([features.expand(*shape, -1), context.expand(*shape, -1)], -1)
