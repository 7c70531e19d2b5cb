"""How the budget of a typed table's fit is spent on its parts."""

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
    """Updates or seconds for one state model and one flow; neither: updates that grow with the
    rows.

    Seconds count from when the budget is made: what is spent beside training, on maps and copies of
    rows, is taken off the flow's.
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
        """A budget of which so many seconds are spent already."""
        return cls(steps, seconds, clock() - spent, clock)

    @property
    def discrete_steps(self) -> int:
        """Updates of the states, at most."""
        return min(self.steps or defaults.DISCRETE_MOST_STEPS, defaults.DISCRETE_MOST_STEPS)

    @property
    def discrete_seconds(self) -> float | None:
        """Seconds for the states; None where updates count."""
        return None if self.seconds is None else defaults.DISCRETE_SHARE * self.seconds

    def flow_steps(self, rows: int) -> int | None:
        """Updates of the flow; None where seconds count."""
        default = min(
            max(defaults.TYPED_FEWEST_STEPS, rows // defaults.TYPED_ROWS_A_STEP),
            defaults.TYPED_MOST_STEPS,
        )
        return self.steps or (default if self.seconds is None else None)

    def likelihood_share(self, asked: float | None) -> float | None:
        """Part of the flow's budget for maximum likelihood; None is what `cnf.fit` makes of
        seconds."""
        return defaults.TYPED_LIKELIHOOD_SHARE if asked is None and self.seconds is None else asked

    @property
    def left(self) -> float | None:
        """Seconds that are left; None where updates count."""
        if self.seconds is None:
            return None
        left = self.seconds - (self.clock() - self.start)
        return max(left, defaults.SMALLEST_SHARE * self.seconds)

    def flow_seconds(self, afterwards: float = 0.0) -> float | None:
        """Seconds that are left for the flow, but for a share that comes after it; None where updates
        count."""
        if self.seconds is None or self.left is None:
            return None
        left = self.left - afterwards * self.seconds
        return max(left, defaults.SMALLEST_SHARE * self.seconds)

    def rows(self, most: int, share: float, work: Callable[[int], object], *, fewest: int) -> int:
        """How many rows a share of the seconds allows some work on; all where updates count. See
        `cnf.recipe.affordable.affordable_rows`."""
        if self.seconds is None:
            return most
        seconds = share * self.seconds
        return affordable_rows(most, seconds, work, fewest=fewest, clock=self.clock)

    def deadline(self, share: float) -> Deadline:
        """The end of a search that may take a share of the seconds."""
        if self.seconds is None:
            return NEVER
        return Deadline(self.clock() + share * self.seconds, self.clock)
