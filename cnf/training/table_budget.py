"""How the budget of a typed table's fit is spent on its parts."""

from __future__ import annotations

from dataclasses import dataclass

from cnf.tables.symbols import SymbolModel
from cnf.training.settings import default_steps

# Of the seconds, for the symbols, and for what imputes.
SYMBOL_SHARE, IMPUTER_SHARE = 0.1, 1 / 3
MOST_SYMBOL_STEPS = 2000
SECONDS_A_COLUMN = 2e-3  # of an update of the symbols


@dataclass(frozen=True)
class Budget:
    """Updates or seconds for one symbol model and one flow; neither: updates that grow with the rows."""

    steps: int | None
    seconds: float | None

    def symbol_steps(self, model: SymbolModel) -> int:
        """Updates of the symbols."""
        if self.seconds is None:
            return min(self.steps or MOST_SYMBOL_STEPS, MOST_SYMBOL_STEPS)
        each = SECONDS_A_COLUMN * max(1, len(model.uncertain))
        return max(1, min(MOST_SYMBOL_STEPS, int(SYMBOL_SHARE * self.seconds / each)))

    def flow_steps(self, rows: int) -> int | None:
        """Updates of the flow; None where seconds count."""
        return self.steps or (default_steps(rows) if self.seconds is None else None)

    @property
    def flow_seconds(self) -> float | None:
        """Seconds for the flow; None where updates count."""
        return None if self.seconds is None else (1 - SYMBOL_SHARE) * self.seconds
