"""Butcher tableaux of explicit Runge-Kutta methods: the method as data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method, kᵢ = f(t + cᵢh, x + h Σⱼ aᵢⱼkⱼ), x' = x + h Σᵢ bᵢkᵢ.

    `b_error` holds b − b̂, so that h Σᵢ b_errorᵢ kᵢ estimates the local error; it is empty for a
    method without an embedded partner. `first_same_as_last` says that the last stage is the
    velocity at the end of the step and serves as the first stage of the next one.

    Example:
        >>> TABLEAUX["rk4"].order, TABLEAUX["rk4"].stages
        (4, 4)
    """

    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    b_error: tuple[float, ...] = ()
    first_same_as_last: bool = False

    @property
    def stages(self) -> int:
        """Number of evaluations in a step that starts without a known velocity."""
        return len(self.b)

    @property
    def error_weights(self) -> tuple[float, ...]:
        """`b_error`, or zeros where the method has no embedded partner."""
        return self.b_error or (0.0,) * self.stages

    @cached_property
    def rate_stages(self) -> tuple[bool, ...]:
        """Which stages enter a quadrature: those with a weight in the step or in its error."""
        return tuple(b != 0 or e != 0 for b, e in zip(self.b, self.error_weights))

    def evaluations(self, steps: int) -> int:
        """Number of velocity evaluations (NFE) that `steps` steps take."""
        return steps * (self.stages - 1) + 1 if self.first_same_as_last else steps * self.stages


_DOPRI5_B = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0)
_DOPRI5_B4 = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)

# Names and coefficients as in Hairer, Nørsett & Wanner, "Solving Ordinary Differential Equations
# I" (1993); dopri5 is the embedded fifth-order pair of Dormand & Prince (1980).
TABLEAUX: dict[str, Tableau] = {
    "euler": Tableau(order=1, a=((),), b=(1.0,), c=(0.0,)),
    "midpoint": Tableau(order=2, a=((), (0.5,)), b=(0.0, 1.0), c=(0.0, 0.5)),
    "rk4": Tableau(
        order=4,
        a=((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
        b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
        c=(0.0, 0.5, 0.5, 1.0),
    ),
    "dopri5": Tableau(
        order=5,
        a=(
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            _DOPRI5_B[:6],
        ),
        b=_DOPRI5_B,
        c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
        b_error=tuple(b - b4 for b, b4 in zip(_DOPRI5_B, _DOPRI5_B4)),
        first_same_as_last=True,
    ),
}
