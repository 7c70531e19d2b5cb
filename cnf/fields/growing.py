"""Fields whose mass grows."""

from __future__ import annotations

from typing import Any

import lazy_loader
import torch
from torch import Tensor, nn

from cnf.fields.activations import tanh
from cnf.fields.base import BoundField, FieldAt, TimeFeatures, VelocityField
from cnf.registry import described, rebuild, register

# Imported where a spline is asked for: it takes half a second.
interpolate = lazy_loader.load("scipy.interpolate", suppress_warning=True)
# Of the polynomial in time that holds the mean rate.
MEAN_DEGREE = 12


@register
class Growth(nn.Module):
    """The growth rate of mass: a network h minus its mean, plus the growth of the total.

    `forward` is g(t, x) = h(t, x) − c(t). With c the mean of h over the rows at t, this does not
    change the total mass, and log M(t) is a natural cubic spline through the known masses.

    Args:
        dim: number of columns of x.
        times: of the known masses, increasing from 0 to 1.
        log_masses: their logarithms.
        hidden: widths of the two hidden layers.

    Example:
        >>> growth = Growth(2, (0.0, 0.5, 1.0), (0.0, 1.0, 2.0))
        >>> growth(torch.tensor(0.5), torch.zeros(3, 2))  # at rest
        tensor([0., 0., 0.], grad_fn=<SubBackward0>)
        >>> growth.log_mass(0.25), growth.log_mass(0.25, order=1)
        (0.5, 2.0)
    """

    times: Tensor
    log_masses: Tensor
    mean: Tensor

    def __init__(
        self,
        dim: int,
        times: tuple[float, ...],
        log_masses: tuple[float, ...],
        hidden: tuple[int, int] = (32, 32),
    ) -> None:
        super().__init__()
        self.dim, self.hidden, self.clock = dim, tuple(hidden), TimeFeatures()
        first, second = hidden
        self.enter = nn.Linear(dim + self.clock.features, first)
        self.between = nn.Linear(first, second)
        self.leave = nn.Linear(second, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        for name, values in (("times", times), ("log_masses", log_masses)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(MEAN_DEGREE + 1, dtype=torch.float64))

    def config(self) -> dict[str, Any]:
        """The sizes, ready for JSON; everything else is a tensor."""
        return {"hidden": self.hidden, "snapshots": len(self.times)}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int) -> Growth:
        """The growth from the result of `config`, with new weights and without masses."""
        nothing = (0.0,) * config["snapshots"]
        return cls(dim, nothing, nothing, tuple(config["hidden"]))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """g (*batch,) at times t () or (*batch,) and states x (*batch, dim)."""
        return self.rate(t, x) - chebyshev(self.mean, t)

    def rate(self, t: Tensor, x: Tensor) -> Tensor:
        """h (*batch,)."""
        clock = self.clock(t).expand(*x.shape[:-1], -1)
        y = tanh(self.enter(torch.cat([x, clock], -1)))
        return self.leave(tanh(self.between(y)))[..., 0]

    def log_mass(self, t: float, order: int = 0) -> float:
        """log M(t), or its derivative."""
        known = (part.numpy(force=True) for part in (self.times, self.log_masses))
        return float(interpolate.CubicSpline(*known, bc_type="natural")(t, order))


@register
class GrowingField(VelocityField):
    """A motion whose mass grows: a velocity v and a growth rate g.

        ∂ρ/∂t + div(ρ v) = g ρ,    so that log ρ changes by −tr ∂v/∂x + g along a path.

    Its divergence in solves is tr ∂v/∂x − g, so the log-density of a flow with this field is log
    ρ.

    Args:
        field: v, without a context, with a divergence in closed form.
        growth: g.

    Raises:
        ValueError: for another field.

    Example:
        >>> from cnf.fields.gated import GatedField
        >>> field = GrowingField(GatedField(2), Growth(2, (0.0, 1.0), (0.0, 0.0)))
        >>> field(torch.tensor(0.5), torch.zeros(3, 2)).shape
        torch.Size([3, 2])
    """

    def __init__(self, field: VelocityField, growth: Growth) -> None:
        if field.context_dim or not field.geometry.flat or not field.bind().closed_form:
            raise ValueError(
                "growth: expected a field without angles or context and with a divergence in closed"
                f" form, such as GatedField; got {type(field).__name__}"
            )
        super().__init__(field.dim)
        self.field, self.growth = field, growth

    def config(self) -> dict[str, Any]:
        """The two parts, ready for JSON."""
        return {"field": described(self.field), "growth": described(self.growth)}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int, context_dim: int) -> GrowingField:
        """The field from the result of `config`, with new weights."""
        return cls(
            rebuild(VelocityField, config["field"], dim, 0), rebuild(Growth, config["growth"], dim)
        )

    @property
    def hidden(self) -> Any:
        """Widths of the hidden layers of v."""
        return self.field.hidden

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity (*batch, dim) at times t () or (*batch,) and states x (*batch, dim)."""
        return self.field(t, x)

    def bind(self, context: Tensor | None = None) -> BoundField:
        """The field with its weights prepared."""
        inner = self.field.bind()

        def at(times: Tensor) -> list[FieldAt]:
            return [self._growing(*now) for now in zip(inner.at(times), times)]

        return BoundField(at, inner.closed_form, (*inner.tensors, *self.growth.parameters()))

    def _growing(self, moment: FieldAt, t: Tensor) -> FieldAt:
        """The field at one time."""

        def both(x: Tensor) -> tuple[Tensor, Tensor]:
            assert moment.velocity_and_divergence is not None
            v, divergence = moment.velocity_and_divergence(x)
            return v, divergence - self.growth(t, x)

        return FieldAt(moment.velocity, both)


def chebyshev(coefficients: Tensor, t: Tensor) -> Tensor:
    """Σₖ cₖ Tₖ(2t − 1) (*batch, *columns) of coefficients (degree + 1, *columns) at times t (*batch,)
    of [0, 1], by the recurrence of Clenshaw.

    Example:
        >>> chebyshev(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.0, 0.5]))
        tensor([2., 0.])
    """
    x = (2 * t - 1).reshape((*t.shape, *[1] * (coefficients.dim() - 1)))
    ahead = beyond = torch.zeros_like(x)
    for c in reversed(coefficients[1:].unbind()):
        ahead, beyond = c + 2 * x * ahead - beyond, ahead
    return coefficients[0] + x * ahead - beyond
