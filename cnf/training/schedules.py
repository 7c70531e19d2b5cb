"""Learning-rate schedules, and the milestones of a phase."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

# Exponent of the validation clock: a smaller one moves validations later in a phase.
LATE_EXPONENT = 2 / 3


class Schedule(Protocol):
    """The learning rate as a function of progress."""

    def __call__(self, peak: float, done: float) -> float:
        """The rate at a fraction `done` in [0, 1] of a phase with peak rate `peak`."""


@dataclass(frozen=True)
class WarmupCosine:
    """A linear warm-up, then a cosine to zero.

    peak · min(1, (done + offset) / warm_up) · (1 + cos π done) / 2

    Attributes:
        warm_up: fraction of the phase in which the rate rises; 0 for none.
        offset: added to `done` during warm-up, so that the first step, at 0, changes the weights.

    Example:
        >>> schedule = WarmupCosine(warm_up=0.1)
        >>> [round(schedule(1.0, done), 3) for done in (0.05, 0.5, 1.0)]
        [0.497, 0.5, 0.0]
    """

    warm_up: float = 0.05
    offset: float = 0.0

    def __call__(self, peak: float, done: float) -> float:
        """The rate at a fraction of a phase; beyond 1 it stays zero."""
        done = min(done, 1.0)
        warm = min(1.0, (done + self.offset) / self.warm_up) if self.warm_up else 1.0
        return peak * warm * 0.5 * (1 + math.cos(math.pi * done))


def crosses_milestone(before: float, done: float, parts: int) -> bool:
    """Whether one of `parts` equal parts of a budget ends between two fractions of it.

    Example:
        >>> [crosses_milestone(before, before + 0.1, 2) for before in (0.3, 0.45, 0.9)]
        [False, True, True]
    """
    return math.floor(min(done, 1) * parts) > math.floor(before * parts)


def late_weighted_progress(done: float) -> float:
    """Progress on the validation clock, 1 − (1 − done)^⅔, which is slow at first.

    The field is best, and the cost of its solve changes most, when the learning rate decreases.

    Example:
        >>> [round(late_weighted_progress(done), 2) for done in (0.0, 0.5, 0.97, 1.0)]
        [0.0, 0.37, 0.9, 1.0]
    """
    return 1 - (1 - min(done, 1.0)) ** LATE_EXPONENT
