"""Every choice of a fit, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from cnf.ode import Gradient
from cnf.training.optimizers import OptimizerName, check_optimizer
from cnf.training.penalties import NONE, Regularizers
from cnf.transforms import Range

AllocationName = Literal["proportional", "neyman"]
PhaseName = Literal["flow matching", "likelihood"]


@dataclass(frozen=True)
class Phase:
    """One part of a fit.

    Attributes:
        name: "flow matching" or "likelihood".
        steps: number of updates, or None where time is the budget.
        seconds: time, or None where updates are the budget.
        batch: rows of an update.
        learning_rate: its peak; after a warm-up it falls to zero along a cosine.
        ema: decay of the moving average of the weights, which is what gets judged and kept.
        validations: how often held-out likelihood is taken at most, closer together towards the
            end.
        optimizer: "adam", or "muon" for matrices and Adam for the rest.
    """

    name: PhaseName
    steps: int | None
    seconds: float | None
    batch: int
    learning_rate: float
    ema: float
    validations: int
    optimizer: OptimizerName = "adam"

    def __post_init__(self) -> None:
        if self.name not in get_args(PhaseName):
            raise ValueError(
                f"phase: expected {', '.join(get_args(PhaseName))}; got {self.name!r}"
            )
        check_optimizer(self.optimizer)


@dataclass(frozen=True)
class Settings:
    """What `cnf.fit` does.

    Attributes:
        phases: one after the other.
        gradient: of the likelihood: "discrete", "direct", or "adjoint" (torchdiffeq).
        coupling_block: rows that flow matching pairs by optimal transport; None pairs
            independently.
        times_a_pair: times at which flow matching uses each pair.
        allocation: how many rows of a region likelihood training draws: "proportional" to those it
            has, or "neyman", more where log p differs more between them (`cnf.training.neyman`).
        solver_steps: steps of the grid that likelihood training starts with.
        error_weight: weight of the solver's error beside the negative log-likelihood, to start
            with.
        regularizers: penalties beside the negative log-likelihood.
        nfe_budget: evaluations a row that scoring should take at most. The penalties are left out
            while it takes far fewer, reach their weights at four fifths of it and up to ten times
            those beyond, where evaluations count against weights too. None always counts penalties
            whole, and evaluations for nothing.
        ranges: (lower, upper) of every column, None for no end; outside of them the density is
            zero. None: no column has ends.
        weight_decay: of the optimizers, decoupled from the gradient.
        clip: largest norm of a gradient.
        patience: validations without progress within a phase after which it ends; as many as it
        has: never.
        tolerance: of the error bar of the finished flow, in nats.
    """

    phases: tuple[Phase, ...]
    gradient: Gradient = "discrete"
    coupling_block: int | None = 64
    times_a_pair: int = 1
    allocation: AllocationName = "proportional"
    solver_steps: int = 12
    error_weight: float = 10.0
    regularizers: Regularizers = NONE
    nfe_budget: int | None = None
    ranges: tuple[Range, ...] | None = None
    weight_decay: float = 0.1
    clip: float = 5.0
    # As many as there are: a phase is at its best when the learning rate has come down.
    patience: int = 10
    tolerance: float = 1e-3

    @property
    def budget(self) -> tuple[int, float]:
        """Updates and seconds of all phases; zero of what is not the budget."""
        updates = sum(phase.steps or 0 for phase in self.phases)
        return updates, sum(phase.seconds or 0.0 for phase in self.phases)

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("phases: expected at least one; got none")
        if self.gradient not in get_args(Gradient):
            raise ValueError(
                f"gradient: expected {', '.join(get_args(Gradient))}; got {self.gradient!r}"
            )
        if self.allocation not in get_args(AllocationName):
            raise ValueError(
                f"allocation: expected {', '.join(get_args(AllocationName))}; got {self.allocation!r}"
            )
        if not self.tolerance > 0:
            raise ValueError(
                f"tolerance: expected a positive number of nats; got {self.tolerance}"
            )


@dataclass(frozen=True)
class FitPlan:
    """What was settled before the first update.

    Attributes:
        choices: what was chosen for the flow, in words.
        allow_mixture_fallback: whether a mixture that is ahead at the end may take the flow's
            place.
        transform_is_free: whether the map to model coordinates may give way with it.
    """

    choices: dict[str, Any] = field(default_factory=dict)
    allow_mixture_fallback: bool = False
    transform_is_free: bool = False
