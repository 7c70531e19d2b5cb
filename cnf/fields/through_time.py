"""Fields that run up to the time in the context."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cnf.fields.base import BoundField, FieldAt, VelocityField
from cnf.fields.geometry import Geometry
from cnf.registry import described, rebuild, register


@register
class ThroughTime(VelocityField):
    """The motion dx/dt = v(t, x) from t = 0 to the time τ of each row, as one from s = 0 to s = 1:

        dx/ds = τ v(τ s, x),    tr ∂(dx/ds)/∂x = τ tr ∂v/∂x.

    The one column of its context is τ. The density p(x | τ) of a flow with this field is the
    density p_τ of the motion, for any τ of each row. Outside [0, 1], v is that of the nearer end.

    Args:
        field: v, without a context.

    Raises:
        ValueError: for a field with a context.

    Example:
        >>> import torch
        >>> from cnf.fields.wrapped import ModuleField
        >>> class Decay(torch.nn.Module):
        ...     def forward(self, t, x):
        ...         return -t * x
        >>> field = ThroughTime(ModuleField(1, Decay()))
        >>> field(torch.tensor(1.0), torch.ones(2, 1), torch.tensor([[0.5], [1.0]]))
        tensor([[-0.2500],
                [-1.0000]])
    """

    def __init__(self, field: VelocityField) -> None:
        if field.context_dim:
            raise ValueError(
                f"field: expected one without a context; got context_dim={field.context_dim}"
            )
        super().__init__(field.dim, 1)
        self.field = field

    def config(self) -> dict[str, Any]:
        """The field, ready for JSON."""
        return {"field": described(self.field)}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int, context_dim: int) -> ThroughTime:
        """The field from the result of `config`, with new weights."""
        return cls(rebuild(VelocityField, config["field"], dim, 0))

    @property
    def geometry(self) -> Geometry:
        """The space of x."""
        return self.field.geometry

    @property
    def hidden(self) -> Any:
        """Widths of the hidden layers of v."""
        return self.field.hidden

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity (*batch, dim) at times t () or (*batch,) and states x (*batch, dim)."""
        return self.bind(context).velocity(t, x)

    def bind(self, context: Tensor | None = None) -> BoundField:
        """The field for the times τ of some rows, (*batch, 1)."""
        if context is None:
            raise ValueError("context of ThroughTime: expected the time of each row; got none")
        inner, span = self.field.bind(), context[..., 0]

        def at(times: Tensor) -> list[FieldAt]:
            shares = times.reshape(-1, *[1] * span.dim()) if times.dim() == 1 else times
            return [_scaled(moment, span) for moment in inner.at((shares * span).clamp(0, 1))]

        return BoundField(at, inner.closed_form, (*inner.tensors, span))


def _scaled(moment: FieldAt, factor: Tensor) -> FieldAt:
    """A field at one time, times a factor of each row (*batch,)."""
    closed = moment.velocity_and_divergence

    def velocity(x: Tensor) -> Tensor:
        return factor[..., None] * moment.velocity(x)

    def velocity_and_divergence(x: Tensor) -> tuple[Tensor, Tensor]:
        assert closed is not None
        v, divergence = closed(x)
        return factor[..., None] * v, factor * divergence

    return FieldAt(velocity, None if closed is None else velocity_and_divergence)
