"""How the budget of a typed table's fit is spent on its parts."""

from __future__ import annotations

from dataclasses import dataclass

import cnf.recipe.defaults as defaults
from cnf.tables.discrete import DiscreteModel


@dataclass(frozen=True)
class Budget:
    """Updates or seconds for one state model and one flow; neither: updates that grow with the
    rows."""

    steps: int | None
    seconds: float | None

    def discrete_steps(self, model: DiscreteModel) -> int:
        """Updates of the states."""
        if self.seconds is None:
            return min(self.steps or defaults.DISCRETE_MOST_STEPS, defaults.DISCRETE_MOST_STEPS)
        each = defaults.DISCRETE_SECONDS_A_COLUMN * max(1, len(model.non_constant))
        return max(
            1,
            min(defaults.DISCRETE_MOST_STEPS, int(defaults.DISCRETE_SHARE * self.seconds / each)),
        )

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
    def flow_seconds(self) -> float | None:
        """Seconds for the flow; None where updates count."""
        return None if self.seconds is None else (1 - defaults.DISCRETE_SHARE) * self.seconds
