"""The settings of a trainer, as plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from torch import Tensor

from cnf.flows import CNF
from cnf.rows import Rows
from cnf.training.objectives import Objective
from cnf.training.optimizers import OptimizerName, check_optimizer
from cnf.training.processes import shared_seconds
from cnf.training.schedules import Schedule, WarmupCosine
from cnf.training.validation import EMAValidator, Validator

Clock = Callable[[], float]


@dataclass(frozen=True)
class Phase:
    """One part of a fit.

    Attributes:
        objective: the objective to minimize.
        steps: number of training steps, or None if the budget is time.
        seconds: time, or None if the budget is training steps.
        batch: rows of a training step.
        learning_rate: the peak learning rate.
        ema: decay of the moving average of the weights, which is validated and kept.
        validations: largest number of validations, more frequent towards the end.
        optimizer: "adam", or "muon" for matrices and Adam for the rest.
        schedule: the learning rate as a function of its peak and the share of the budget spent.
    """

    objective: Objective
    steps: int | None
    seconds: float | None
    batch: int
    learning_rate: float
    ema: float
    validations: int
    optimizer: OptimizerName = "adam"
    # The offset lets the first training step, at a share of 0, move the weights.
    schedule: Schedule = field(default_factory=lambda: WarmupCosine(offset=1e-3))

    def __post_init__(self) -> None:
        check_optimizer(self.optimizer)
        if (self.steps is None) == (self.seconds is None):
            raise ValueError(
                f"phase: expected steps or seconds, the other None; got {self.steps}, {self.seconds}"
            )


@dataclass(frozen=True)
class Settings:
    """Settings of a `Trainer`.

    Attributes:
        phases: phases, in order.
        weight_decay: decoupled weight decay of the optimizers.
        clip: largest norm of a gradient.
        patience: number of validations without progress after which a phase ends.
        validator: makes the validator from flow, decay, held-out rows and pilot rows.
        clock: function without arguments that returns the time of budgets in seconds.
    """

    phases: tuple[Phase, ...]
    weight_decay: float = 0.1
    clip: float = 5.0
    # Early stopping is slow by default: a phase is best once the learning rate has decreased.
    patience: int = 10
    validator: Callable[[CNF, float, Rows, Rows], Validator] = EMAValidator
    clock: Clock = field(default=shared_seconds, compare=False)

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("phases: expected at least one; got none")

    @property
    def budget(self) -> tuple[int, float]:
        """Training steps and seconds of all phases; zero for the unit that is not used."""
        steps = sum(phase.steps or 0 for phase in self.phases)
        return steps, sum(phase.seconds or 0.0 for phase in self.phases)


def described(value: Any) -> Any:
    """Settings as data for JSON; equal settings give equal data. Fields that are excluded from
    comparison are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        compared = [f.name for f in fields(value) if f.compare]
        inner = {name: described(getattr(value, name)) for name in compared}
        return {"class": type(value).__qualname__, **inner}
    if isinstance(value, tuple | list):
        return [described(part) for part in value]
    if isinstance(value, Tensor):
        return [list(value.shape), value.double().sum().item()]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)
