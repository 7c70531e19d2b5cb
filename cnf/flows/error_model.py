"""Estimates of the solver's error, and the error bounds from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Power of the step in the error of a solve by "adams"; the estimate of "dopri5" falls with the
# fourth, so that its rows may need one look more.
GLOBAL_ORDER = 5
# Units of the last place that a solve loses where nobody has measured it.
USUAL_ROUNDING = 8.0
# Steepness of a base, and length of a context, that no row has: files of the first release do not
# say what was measured.
UNMEASURED = 1e6
# Bars of rows whose context is longer than all that the scale was measured on are so many times
# as wide. On a conditional density, whose contexts reach to 300 deviations, errors there are up to
# four times a bar of the usual width (scripts/benchmark_errors.py).
BEYOND = 4.0


class SolveResult(NamedTuple):
    """The result of one solve.

    Attributes:
        log_prob: log-densities (rows,).
        x_error: estimate of each step's error in the state (steps, rows).
        q_error: the same in the integral of the divergence.
        nfe: evaluations per row.
        extra: integrals of further rates, from the base to the data (rows, rates).
        ends: base points z of the rows (rows, dim).
        context_length: |c| of their contexts in model coordinates (rows,); zero without one.
        steepness_at: computes |∇ log p₀(z)| (rows,) at base points.

    Steps are in the order of time, from the base to the data, although scoring solves backward.
    """

    log_prob: Tensor
    x_error: Tensor
    q_error: Tensor
    nfe: int
    extra: Tensor
    ends: Tensor
    context_length: Tensor
    steepness_at: Callable[[Tensor], Tensor]

    def steepness(self) -> Tensor:
        """|∇ log p₀(z)| (rows,) at the base points of the rows."""
        return self.steepness_at(self.ends)

    @property
    def step_error(self) -> Tensor:
        """Both estimates together (steps, rows)."""
        return self.x_error + self.q_error


@dataclass(frozen=True)
class ErrorModel:
    """How estimates become error bounds.

    Attributes:
        tolerance: of the error bound of a row, in nats.
        bar_scale: the error bound per unit of the raw estimate.
        quadrature_weight: weight of the quadrature estimate relative to that of the state.
        floor: constant added to the raw estimate of every row.
        rounding: rounding error of a solve, in units in the last place of log_prob.
        usual_steepness: mean of |∇ log p₀(z)| over the calibration rows.
        largest_steepness: its maximum over the calibration rows. Steeper rows are outside the
            range on which the scale was measured.
        largest_context: largest norm of their contexts in model coordinates. Rows with larger
            contexts have wider bounds.
    """

    tolerance: float = 1e-3
    bar_scale: float = 1.0
    quadrature_weight: float = 1.0
    floor: float = 0.0
    rounding: float = USUAL_ROUNDING
    usual_steepness: float = 1.0
    largest_steepness: float = UNMEASURED
    largest_context: float = UNMEASURED

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ErrorModel:
        """The error model from a file.

        Raises:
            ValueError: for invalid numbers.
        """
        if not all(type(value) in (int, float) for value in config.values()):
            raise ValueError(f"error_model: expected numbers; got {config}")
        model = cls(**{key: float(value) for key, value in config.items()})
        largest = model.largest_steepness, model.largest_context
        factors = model.bar_scale, model.floor, model.rounding, *largest
        if not (min(model.tolerance, model.usual_steepness) > 0 and min(factors) >= 0):
            raise ValueError(
                "error_model: expected a tolerance and a steepness above zero, and bars and rounding"
                f" of at least zero; got {config}"
            )
        return model

    def estimate(self, scores: SolveResult) -> Tensor:
        """The error of each row's log-density (rows,) without rounding, in nats."""
        own = (scores.x_error + self.quadrature_weight * scores.q_error).sum(0)
        beyond = scores.context_length > self.largest_context
        width = own.new_full((), BEYOND).where(beyond, 1.0)
        return self.bar_scale * (self.floor + own) * self._growth(scores.steepness()) * width

    def _growth(self, steepness: Tensor) -> Tensor:
        """How much more an error in the state moves the log-density of a row (rows,) than of the
        rows that the scale was measured on; 1 for a row that is like them."""
        outside = steepness > self.largest_steepness
        return (steepness / self.usual_steepness).clamp(min=1).where(outside, 1.0)

    def for_refined_grid(self, factor: float) -> ErrorModel:
        """The error model for a grid with `factor` times the steps, whose rounding errors add at
        random."""
        return replace(
            self, floor=self.floor / factor**GLOBAL_ORDER, rounding=self.rounding * factor**0.5
        )

    def rounding_error(self, log_prob: Tensor) -> Tensor:
        """The rounding error of log_prob (rows,), in nats."""
        return (
            self.rounding * torch.finfo(log_prob.dtype).eps * log_prob.detach().abs().clamp(min=1)
        )

    def limit(self, dtype: torch.dtype) -> float:
        """The limit above which a row is re-solved: the tolerance, or the rounding error of the
        estimates, which a finer grid cannot reduce."""
        return max(self.tolerance, USUAL_ROUNDING * self.bar_scale * torch.finfo(dtype).eps)
