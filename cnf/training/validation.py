"""Validation: the moving average of the weights, and its held-out likelihood."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from cnf.fields import VelocityField
from cnf.flows import CNF, BoundFlow, ErrorModel
from cnf.flows.calibration import spread_evenly
from cnf.flows.error_model import SolveResult
from cnf.ode import Grid
from cnf.rows import Rows, evenly_spaced, weighted_nll
from cnf.training.batches import in_model_coordinates

# Number of validation rows, or of their numbers if that allows more rows. With few rows, sampling
# error decides between weights that differ by a few thousandths of a nat; few columns are cheap to solve.
VALIDATION_ROWS, VALIDATION_NUMBERS = 2_048, 8_192
# Tolerance of a validation's solves, in nats; that of the finished flow is stricter.
VALIDATION_TOLERANCE = 1e-2
# Steps of their grid: with fewer, more rows would need to be solved again.
VALIDATION_STEPS = 20


class ValidationResult(NamedTuple):
    """Held-out NLL and its standard error, in nats and the units of the data, and the evaluations
    per row."""

    nll: float
    se: float
    nfe: int


class Validator(Protocol):
    """Evaluates the weights of a fit on held-out rows.

    Attributes:
        flow: the evaluated flow.
    """

    flow: CNF

    def update(self, flow: CNF) -> None:
        """Follow the flow in training, after every training step."""

    def validate(self) -> ValidationResult:
        """The held-out NLL of the weights; lower is better."""
        raise NotImplementedError

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights of the field that `validate` evaluates."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The state since the start of the phase."""
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a state."""


class EMAValidator(Validator):
    """A flow whose weights are the moving average of those in training.

    Args:
        flow: the flow in training.
        decay: decay of the average; it is smaller at first, so that early weights are forgotten.
        valid: held-out rows, in the units of the data.
        pilot: training rows for the calibration of the grid, in the units of the data.
    """

    def __init__(self, flow: CNF, decay: float, valid: Rows, pilot: Rows) -> None:
        self.average = AveragedModel(flow.field, multi_avg_fn=_moving_average(decay))
        self.flow = copy.deepcopy(flow)
        self.flow.field = cast(VelocityField, self.average.module)
        self.flow.eval()
        self.valid = validation_subset(valid)
        self.pilot = in_model_coordinates(flow, pilot)

    def update(self, flow: CNF) -> None:
        """Update the average with the present weights of the field."""
        self.average.update_parameters(flow.field)

    @torch.no_grad()
    def validate(self) -> ValidationResult:
        """Held-out NLL on a grid calibrated on the pilot rows.

        Rows beyond the tolerance are re-solved on finer grids. An unsolvable row counts as the
        worst of the others, so that it does not dominate the mean.
        """

        def score(grid: Grid) -> SolveResult:
            bound = exact(self.flow, solver=grid)
            return bound.solve_log_prob(self.pilot.x, self.pilot.context)

        bound = exact(
            self.flow,
            self.valid.context,
            solver=spread_evenly(score, VALIDATION_STEPS),
            error_model=ErrorModel(VALIDATION_TOLERANCE),
        )
        found = bound.evaluate(self.valid.x)
        log_prob = fill_unsolved_with_worst(found.log_prob)
        nfe = round(found.nfe.double().mean().item())
        return ValidationResult(*weighted_nll(log_prob, self.valid.weights), nfe)

    def weights(self) -> dict[str, Tensor]:
        """A copy of the average."""
        return snapshot(self.average.module)

    def state_dict(self) -> dict[str, Any]:
        """The average and the number of its updates."""
        return self.average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a state."""
        self.average.load_state_dict(state)


def fill_unsolved_with_worst(log_prob: Tensor) -> Tensor:
    """Log-densities (rows,) with those of unsolved rows, which are NaN, set to the smallest."""
    sound = log_prob[log_prob.isfinite()]
    return log_prob.nan_to_num(nan=sound.min().item()) if len(sound) else log_prob


def validation_subset(rows: Rows) -> Rows:
    """The rows for a validation: at most a fixed number, evenly spaced."""
    most = max(VALIDATION_ROWS, VALIDATION_NUMBERS // rows.x.shape[1])
    return rows.take(evenly_spaced(rows.x, most))


@torch.no_grad()
def mean_nll(flow: CNF, rows: Rows) -> tuple[float, float]:
    """Mean of −log p(x) over rows and its standard error, in nats and the units of the data."""
    return weighted_nll(exact(flow, rows.context).evaluate(rows.x).log_prob, rows.weights)


def exact(flow: CNF, context: Tensor | None = None, **options: Any) -> BoundFlow:
    """The flow with its exact divergence, even if training uses an estimate."""
    return flow.bind(context, divergence="auto", **options)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """average ← d average + (1 − d) current, with d = min(decay, (1 + n)/(10 + n)) after n
    updates."""

    @torch.no_grad()
    def average(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        n = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return average
