"""Penalties of likelihood training that make paths easy to solve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cnf.ode import System, SystemAt

# Step of the finite differences along a trajectory, in time and in model coordinates.
DIFFERENCE = 1e-2


@dataclass(frozen=True)
class Regularizers:
    """Weights of penalties, each an integral over time along the trajectory of a row.

    Attributes:
        kinetic: weight of ∫ |v|² dt, for short paths (Finlay et al. 2020).
        jacobian: weight of ∫ |∂v/∂x|² dt in the Frobenius norm, for smooth fields (Finlay et al.
            2020).
        transport: weight of ∫ |∂v/∂t + (v·∇)v|² dt, which is zero if particles move straight at
            constant speed, as in optimal transport (Onken et al. 2021, for a potential).
    """

    kinetic: float = 0.0
    jacobian: float = 0.0
    transport: float = 0.0

    def __post_init__(self) -> None:
        for name, weight in vars(self).items():
            if not weight >= 0:
                raise ValueError(f"{name}: expected a weight of at least 0; got {weight}")

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def scaled(self, factor: float) -> Regularizers:
        """All weights times a factor."""
        return Regularizers(*(factor * weight for weight in vars(self).values()))

    def extend(self, system: System, like: Tensor, generator: torch.Generator) -> System:
        """The system with the weighted sum of the penalties as one more quadrature.

        Args:
            system: velocity and divergence.
            like: initial rows (rows, dim) of the solve.
            generator: generator of the probe ε in |∂v/∂x|² = E|(∂v/∂x) ε|², drawn once per solve.
        """
        probe = torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)

        def at(times: Tensor) -> Sequence[SystemAt]:
            # Forward differences in the first half of time, backward ones in the second.
            shift = DIFFERENCE * (1 - 2 * (times > 0.5).to(times.dtype))
            moved = system.at(times + shift) if self.transport else system.at(times)
            return [
                SystemAt(here.velocity, partial(self._rates, here, there, step, probe))
                for here, there, step in zip(system.at(times), moved, shift.unbind())
            ]

        return System(at, system.tensors)

    def _rates(
        self, here: SystemAt, there: SystemAt, step: Tensor, probe: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """v, and the rates of the system with the rate of the penalty appended."""
        v, rates = here.evaluate(x)
        penalty = self.kinetic * v.square().sum(-1)
        if self.jacobian:
            product = (here.velocity(x + DIFFERENCE * probe) - v) / DIFFERENCE
            penalty = penalty + self.jacobian * product.square().sum(-1)
        if self.transport:
            acceleration = (there.velocity(x + step * v) - v) / step
            penalty = penalty + self.transport * acceleration.square().sum(-1)
        return v, torch.cat([rates, penalty[..., None]], -1)


NO_PENALTIES = Regularizers()
