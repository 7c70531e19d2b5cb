"""Fields that are sums of fields."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from cnf.fields.base import BoundField, FieldAt, VelocityField
from cnf.registry import described, rebuild, register


@register
class SumField(VelocityField):
    """v = Σₖ vₖ, and tr ∂v/∂x = Σₖ tr ∂vₖ/∂x: in closed form if every part has one.

    Args:
        fields: the parts, one or more, for the same columns and the same context.

    Raises:
        ValueError: for no part, or parts of different columns or context.

    Example:
        >>> from cnf.fields import GatedField
        >>> waves = SumField([GatedField(2, (32, 32), frequency=f) for f in (1.0, 8.0)])
        >>> (field,) = waves.bind().at(torch.tensor([0.5]))
        >>> v, divergence = field.velocity_and_divergence(torch.zeros(10, 2))
        >>> v.shape, divergence.shape
        (torch.Size([10, 2]), torch.Size([10]))
    """

    fields: Sequence[VelocityField]

    def __init__(self, fields: Sequence[VelocityField]) -> None:
        kinds = {(field.dim, field.context_dim) for field in fields}
        if len(kinds) != 1:
            raise ValueError(
                f"fields of a sum: expected one dim and context_dim; got {sorted(kinds) or 'no field'}"
            )
        super().__init__(*kinds.pop())
        self.add_module("fields", nn.ModuleList(fields))

    def config(self) -> dict[str, Any]:
        """The parts, ready for JSON."""
        return {"fields": [described(field) for field in self.fields]}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int, context_dim: int) -> SumField:
        """The sum from the result of `config`, with new weights."""
        return cls([rebuild(VelocityField, part, dim, context_dim) for part in config["fields"]])

    @property
    def resting(self) -> bool:
        """Whether all parts are known to be zero."""
        return all(field.resting for field in self.fields)

    @property
    def hidden(self) -> Any:
        """Widths of the hidden layers of all parts, one after another."""
        widths: list[Any] = [field.hidden for field in self.fields]
        return tuple(chain.from_iterable(widths))

    def mask(self, context: Tensor | None) -> Tensor | None:
        """Which columns each row has, as the first part sees it."""
        return self.fields[0].mask(context)

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity (*batch, dim) at times t () or (*batch,) and states x (*batch, dim)."""
        return reduce(torch.add, (field(t, x, context) for field in self.fields))

    def bind(self, context: Tensor | None = None) -> BoundField:
        """The parts for one context; tensors that several parts share are listed once."""
        parts = [field.bind(context) for field in self.fields]
        tensors = {id(tensor): tensor for part in parts for tensor in part.tensors}

        def at(times: Tensor) -> list[FieldAt]:
            return [_sum(moment) for moment in zip(*(part.at(times) for part in parts))]

        closed_form = all(part.closed_form for part in parts)
        return BoundField(at, closed_form, tuple(tensors.values()))


def _sum(parts: Sequence[FieldAt]) -> FieldAt:
    """The sum of parts at one time."""

    def velocity(x: Tensor) -> Tensor:
        return reduce(torch.add, (part.velocity(x) for part in parts))

    closed = [part.velocity_and_divergence for part in parts]

    def velocity_and_divergence(x: Tensor) -> tuple[Tensor, Tensor]:
        velocities, divergences = zip(*(both(x) for both in closed if both is not None))
        return reduce(torch.add, velocities), reduce(torch.add, divergences)

    return FieldAt(velocity, None if None in closed else velocity_and_divergence)
