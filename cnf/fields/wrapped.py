"""Any module as a velocity field."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from cnf.fields.base import VelocityField
from cnf.registry import described, rebuild, register


def as_field(field: nn.Module, dim: int, context_dim: int) -> VelocityField:
    """The field itself, or any other module as a `ModuleField`."""
    return (
        field
        if isinstance(field, VelocityField)
        else ModuleField(dim, field, context_dim=context_dim)
    )


@register
class ModuleField(VelocityField):
    """A module of (t, x), or of (t, x, context), as a field.

    Its t is a column (*batch, 1), so that `torch.cat([t, x], -1)` and `t * x` both work. To be
    saved in a model file, the module must keep its constructor's arguments as attributes of the
    same names, or define `config` and `from_config`.

    Args:
        dim: number of columns of x.
        module: called with t (*batch, 1) and x (*batch, dim), and with the context (*batch,
            context_dim) if the flow has one; returns (*batch, dim).
        context_dim: number of columns of the context.

    Example:
        >>> class Decay(nn.Module):
        ...     def forward(self, t, x):
        ...         return -t * x
        >>> import torch
        >>> ModuleField(2, Decay())(torch.tensor(0.5), torch.ones(1, 2))
        tensor([[-0.5000, -0.5000]])
    """

    def __init__(self, dim: int, module: nn.Module, *, context_dim: int = 0) -> None:
        super().__init__(dim, context_dim)
        self.module = module

    def config(self) -> dict[str, Any]:
        """The module, by its class and its settings."""
        return {"module": described(self.module)}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int, context_dim: int) -> ModuleField:
        """The field of a module with new weights."""
        return cls(dim, rebuild(nn.Module, config["module"]), context_dim=context_dim)

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity (*batch, dim) at times t () or (*batch,) and states x (*batch, dim)."""
        column = t.expand(x.shape[:-1])[..., None]
        if context is None:
            return self.module(column, x)
        return self.module(column, x, context.expand(*x.shape[:-1], -1))
