"""Division of the budget of a typed table's fit among its parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cnf.recipe.defaults as defaults
from cnf.recipe.affordable import Deadline, affordable_rows
from cnf.training.config import Clock
from cnf.training.processes import shared_seconds

NEVER = Deadline(math.inf)


@dataclass(frozen=True)
class Budget:
    """A budget in training steps or in seconds for one state model and one flow; by default, the
    training steps grow with the rows.

    Seconds count from the creation of the budget. Time spent outside training, on transforms and
    copies of rows, is subtracted from the flow's share.
    """

    steps: int | None
    seconds: float | None
    start: float
    clock: Clock

    @classmethod
    def now(
        cls,
        steps: int | None,
        seconds: float | None,
        clock: Clock = shared_seconds,
        spent: float = 0.0,
    ) -> Budget:
        """A budget of which some seconds are already spent."""
        return cls(steps, seconds, clock() - spent, clock)

    @property
    def discrete_steps(self) -> int:
        """Largest number of training steps for the states."""
        return min(self.steps or defaults.DISCRETE_MOST_STEPS, defaults.DISCRETE_MOST_STEPS)

    @property
    def discrete_seconds(self) -> float | None:
        """Seconds for the states; None if the budget is in steps."""
        return None if self.seconds is None else defaults.DISCRETE_SHARE * self.seconds

    def flow_steps(self, rows: int) -> int | None:
        """Training steps of the flow; None if the budget is in seconds."""
        default = min(
            max(defaults.TYPED_FEWEST_STEPS, rows // defaults.TYPED_ROWS_A_STEP),
            defaults.TYPED_MOST_STEPS,
        )
        return self.steps or (default if self.seconds is None else None)

    def likelihood_share(self, asked: float | None) -> float | None:
        """Fraction of the flow's budget for maximum likelihood; None leaves the choice to `cnf.fit`."""
        return defaults.TYPED_LIKELIHOOD_SHARE if asked is None and self.seconds is None else asked

    @property
    def left(self) -> float | None:
        """Remaining seconds; None if the budget is in steps."""
        if self.seconds is None:
            return None
        left = self.seconds - (self.clock() - self.start)
        return max(left, defaults.SMALLEST_SHARE * self.seconds)

    def flow_seconds(self, afterwards: float = 0.0) -> float | None:
        """Remaining seconds for the flow, minus a fraction of the budget for later work; None if the budget
        is in steps."""
        if self.seconds is None or self.left is None:
            return None
        left = self.left - afterwards * self.seconds
        return max(left, defaults.SMALLEST_SHARE * self.seconds)

    def rows(self, most: int, share: float, work: Callable[[int], object], *, fewest: int) -> int:
        """The number of rows that a fraction of the time allows; all if the budget is in steps. See
        `cnf.recipe.affordable.affordable_rows`."""
        if self.seconds is None:
            return most
        seconds = share * self.seconds
        return affordable_rows(most, seconds, work, fewest=fewest, clock=self.clock)

    def deadline(self, share: float) -> Deadline:
        """The end of a search that may take a fraction of the seconds."""
        if self.seconds is None:
            return NEVER
        return Deadline(self.clock() + share * self.seconds, self.clock)
