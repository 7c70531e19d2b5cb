"""The numbers of a fit that change while it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

# Part of a phase's seconds left that one validation may take, and of all its seconds that all of
# them may take, spent no faster than the clock of validations runs.
VALIDATION_SHARE_OF_REST, VALIDATION_SHARE = 0.5, 0.08


@dataclass
class PhaseState:
    """What starts anew with each phase.

    Attributes:
        index: of the phase.
        unspent: seconds that the phase before it left; below zero, what it has to make up for.
        step: training steps of the phase.
        seconds: of the phase.
        validation_seconds: of all its validations.
        rate_scale: factor of the learning rate, halved by every rollback.
        stale: validations without progress.
        best: the best held-out NLL of the phase, penalty included; what ends a phase early is
            judged within it, since a high learning rate first gives back some of what was reached.
        good_steps: since the start or the last rollback.
        losses: reported since the last record.
        window: reported since the last look for divergence.
        baseline: the largest loss of the calmest window.
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
        """Whether a validation of `cost` seconds leaves most of the seconds to training steps, at
        this progress on the clock of validations and with so many seconds left."""
        allowed = VALIDATION_SHARE * progress * (self.seconds + left)
        within = self.validation_seconds + cost <= allowed
        return within and cost < VALIDATION_SHARE_OF_REST * left


@dataclass
class TrainerState:
    """The numbers of a fit.

    Attributes:
        phase: those of the present phase.
        step: training steps so far.
        seconds: spent so far.
        last_validation: seconds of the last validation.
        overdrawn: seconds gone before training that no phase has made up for.
        best_nll: held-out NLL of the best weights.
        best_penalty: nats that counted against them; None if that was not known.
    """

    phase: PhaseState = field(default_factory=PhaseState)
    step: int = 0
    seconds: float = 0.0
    last_validation: float = 0.0
    overdrawn: float = 0.0
    best_nll: float = math.inf
    best_penalty: float | None = None
