"""The moving average of the weights, and its held-out likelihood."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from cnf.flows import CNF, BoundFlow, ErrorModel
from cnf.flows.calibration import spread_evenly
from cnf.flows.scoring import SolveResult
from cnf.ode import Grid
from cnf.rows import Rows, evenly_spaced, weighted_nll

# Rows that a model is judged by: more where a solve of few columns makes them cheap. On few,
# chance decides between models that are a few thousandths of a nat apart.
ROWS, NUMBERS = 2_048, 8_192
# Tolerance in nats of the solves that validation rests on; the finished flow is held to a stricter
# one.
TOLERANCE = 1e-2
# Of their grid: enough for the tolerance, where fewer would leave more rows to second looks.
STEPS = 20


class ValidationResult(NamedTuple):
    """Held-out NLL and its standard error (nats, units of the data), and the evaluations a row it
    took."""

    nll: float
    se: float
    nfe: int


class EMAValidator:
    """A flow whose weights are the moving average of those in training.

    Args:
        flow: the flow in training; its field is averaged by `update`.
        decay: of the average; it starts low, so that early weights are forgotten.
        valid: rows to validator by.
    """

    def __init__(self, flow: CNF, decay: float, valid: Rows) -> None:
        self.average = AveragedModel(flow.field, multi_avg_fn=_moving_average(decay))
        self.flow = copy.deepcopy(flow)
        self.flow.field = self.average.module
        self.flow.eval()
        self.valid = validation_subset(valid)

    def update(self, flow: CNF) -> None:
        """Take the field's present weights into the average."""
        self.average.update_parameters(flow.field)

    @torch.no_grad()
    def validate(self, pilot: Tensor, context: Tensor | None) -> ValidationResult:
        """Held-out NLL by a grid placed on pilot rows in model coordinates; rows beyond the
        tolerance are
        solved again on finer grids, and one that is lost counts as the worst of the others: it is
        not to hide from validation how the others fare."""

        def score(grid: Grid) -> SolveResult:
            return exact(self.flow, solver=grid).solve_log_prob(pilot, context)

        bound = exact(
            self.flow,
            self.valid.context,
            solver=spread_evenly(score, STEPS),
            error_model=ErrorModel(TOLERANCE),
        )
        found = bound.evaluate(self.valid.x)
        log_prob = fill_unsolved_with_worst(found.log_prob)
        nfe = round(found.nfe.double().mean().item())
        return ValidationResult(*weighted_nll(log_prob, self.valid.weights), nfe)


def fill_unsolved_with_worst(log_prob: Tensor) -> Tensor:
    """Rows that could not be solved, which are NaN, as the worst of the others."""
    sound = log_prob[log_prob.isfinite()]
    return log_prob.nan_to_num(nan=sound.min().item()) if len(sound) else log_prob


def validation_subset(rows: Rows) -> Rows:
    """As many of the rows, spread evenly, as there is time to validator by."""
    return rows.take(evenly_spaced(rows.x, max(ROWS, NUMBERS // rows.x.shape[1])))


@torch.no_grad()
def mean_nll(flow: CNF, rows: Rows) -> tuple[float, float]:
    """Mean of −log p(x) over rows, in nats and the units of the data, and its standard error."""
    return weighted_nll(exact(flow, rows.context).evaluate(rows.x).log_prob, rows.weights)


def exact(flow: CNF, context: Tensor | None = None, **options: Any) -> BoundFlow:
    """The flow with its exact divergence, whatever it estimates in training."""
    return flow.bind(context, divergence="auto", **options)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _moving_average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """average ← d average + (1 − d) current, with d = min(decay, (1 + n)/(10 + n)) after n
    updates."""

    @torch.no_grad()
    def average(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        n = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return average
