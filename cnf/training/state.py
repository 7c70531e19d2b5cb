"""The state of a running fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from cnf.training.schedules import crosses_milestone, late_weighted_progress

# Largest fraction of a phase's remaining seconds for one validation, and of all its seconds for all
# validations. The latter is released in proportion to the validation clock.
VALIDATION_SHARE_OF_REST, VALIDATION_SHARE = 0.5, 0.08
MOST_SPENT = 0.5  # largest fraction of a phase that earlier work may use
LOSS_WINDOW = 20  # training steps in a check for divergence


@dataclass
class PhaseState:
    """The state of one phase.

    Attributes:
        index: index of the phase.
        unspent: seconds left by the phase before; if negative, seconds by which this phase is
            shortened.
        step: training steps of the phase.
        seconds: seconds of the phase so far.
        validation_seconds: seconds of all its validations.
        rate_scale: factor of the learning rate, halved by every rollback.
        stale: number of validations without progress.
        best: the best held-out NLL of the phase, including the penalty. Early stopping compares
            within a phase, because a high learning rate worsens the NLL at first.
        good_steps: training steps since the start or the last rollback.
        losses: losses reported since the last record.
        window: losses since the last check for divergence.
        baseline: the largest loss of the most stable window.
    """

    index: int = 0
    unspent: float = 0.0
    step: int = 0
    seconds: float = 0.0
    validation_seconds: float = 0.0
    rate_scale: float = 1.0
    stale: int = 0
    best: float = math.inf
    good_steps: int = 0
    losses: list[float] = field(default_factory=list)
    window: list[float] = field(default_factory=list)
    baseline: float = math.inf

    def affords_validation(self, cost: float, progress: float, left: float) -> bool:
        """Whether a validation of `cost` seconds leaves most of the time to training steps, given
        the progress of validations and the seconds left."""
        allowed = VALIDATION_SHARE * progress * (self.seconds + left)
        within = self.validation_seconds + cost <= allowed
        return within and cost < VALIDATION_SHARE_OF_REST * left

    def window_with(self, loss: float) -> list[float]:
        """The last losses for the check for divergence, including this one; none until there are
        enough."""
        self.window.append(loss)
        if len(self.window) < LOSS_WINDOW:
            return []
        window, self.window = self.window, []
        return window


@dataclass
class TrainerState:
    """The counters of a fit.

    Attributes:
        phase: state of the present phase.
        step: training steps so far.
        seconds: seconds spent so far.
        last_validation: seconds of the last validation.
        overdrawn: seconds beyond the budget that no phase has compensated.
        best_nll: held-out NLL of the best weights.
        best_penalty: their penalty in nats; None if unknown.
    """

    phase: PhaseState = field(default_factory=PhaseState)
    step: int = 0
    seconds: float = 0.0
    last_validation: float = 0.0
    overdrawn: float = 0.0
    best_nll: float = math.inf
    best_penalty: float | None = None

    def spend(self, seconds: float) -> None:
        """Count spent seconds."""
        self.seconds += seconds
        self.phase.seconds += seconds

    def spend_on_validation(self, seconds: float) -> None:
        """Count the seconds of a validation."""
        self.spend(seconds)
        self.last_validation = seconds
        self.phase.validation_seconds += seconds

    def validation_is_due(self, before: float, done: float, validations: int, left: float) -> bool:
        """Whether the progress of the phase has crossed one of the milestones. If the budget is in
        seconds, validations must also leave most of the time to training steps. At the end of a
        phase it is always due."""
        clock = late_weighted_progress
        if not crosses_milestone(clock(before), clock(done), validations):
            return False
        if done >= 1 or math.isinf(left):
            return True
        return self.phase.affords_validation(self.last_validation, clock(done), left)

    def before_last_validation(self, seconds: float) -> float:
        """Seconds of a phase, including those left by the previous one, that may pass before its last
        validation, which takes about as long as the one before."""
        whole = seconds + self.phase.unspent
        return whole - min(self.last_validation, VALIDATION_SHARE_OF_REST * whole)

    def make_up(self, seconds: float | None) -> None:
        """Subtract seconds already spent from those of the phase, to half of its time at most."""
        gone = min(self.overdrawn, MOST_SPENT * (seconds or 0.0))
        self.phase.unspent -= gone
        self.overdrawn -= gone

    def improved(self, nll: float, penalty: float | None) -> bool:
        """Record a validation, and return whether it is the best so far; the best of the phase is
        recorded as well, penalty included."""
        more, worth = 0.0, nll + (penalty or 0.0)
        if penalty is not None and self.best_penalty is not None:
            more = penalty - self.best_penalty
        self.phase.stale = 0 if worth < self.phase.best else self.phase.stale + 1
        self.phase.best = min(self.phase.best, worth)
        better = nll + more < self.best_nll
        if better:
            self.best_nll, self.best_penalty = nll, penalty
        return better
