"""How the budget of a typed table's fit is spent on its parts."""

from __future__ import annotations

from dataclasses import dataclass

from cnf.tables.discrete import DiscreteModel

# Of the seconds, for the states, and for what imputes.
DISCRETE_SHARE, IMPUTER_SHARE = 0.1, 1 / 3
MOST_DISCRETE_STEPS = 2000
# Updates by default, one for so many rows, and the part of them by maximum likelihood: far fewer
# than a plain table takes bring samples that boosted trees hardly know from real rows; the imputer
# takes as many again.
FEWEST_STEPS, MOST_STEPS, ROWS_A_STEP = 1500, 3000, 20
LIKELIHOOD_SHARE = 0.03
SECONDS_A_COLUMN = 2e-3  # of an update of the states


@dataclass(frozen=True)
class Budget:
    """Updates or seconds for one state model and one flow; neither: updates that grow with the
    rows."""

    steps: int | None
    seconds: float | None

    def discrete_steps(self, model: DiscreteModel) -> int:
        """Updates of the states."""
        if self.seconds is None:
            return min(self.steps or MOST_DISCRETE_STEPS, MOST_DISCRETE_STEPS)
        each = SECONDS_A_COLUMN * max(1, len(model.non_constant))
        return max(1, min(MOST_DISCRETE_STEPS, int(DISCRETE_SHARE * self.seconds / each)))

    def flow_steps(self, rows: int) -> int | None:
        """Updates of the flow; None where seconds count."""
        default = min(max(FEWEST_STEPS, rows // ROWS_A_STEP), MOST_STEPS)
        return self.steps or (default if self.seconds is None else None)

    def likelihood_share(self, asked: float | None) -> float | None:
        """Part of the flow's budget for maximum likelihood; None is what `cnf.fit` makes of
        seconds."""
        return LIKELIHOOD_SHARE if asked is None and self.seconds is None else asked

    @property
    def flow_seconds(self) -> float | None:
        """Seconds for the flow; None where updates count."""
        return None if self.seconds is None else (1 - DISCRETE_SHARE) * self.seconds
