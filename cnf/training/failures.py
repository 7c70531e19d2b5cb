"""How a fit may fail, or end before its time."""

from __future__ import annotations

from collections.abc import Sequence

from cnf.training.history import History

# Updates that are looked at together.
WINDOW = 20
# What is far above: so many times a loss of flow matching, or so many nats a column.
TIMES, NATS = 10.0, 10.0


class TrainingError(RuntimeError):
    """Training diverged and could not be brought back."""


class Interrupted(KeyboardInterrupt):
    """A fit that was stopped; its flow has the best weights so far, and `history` tells the rest."""

    def __init__(self, history: History) -> None:
        super().__init__("interrupted")
        self.history = history


def exploded(window: Sequence[float], calm: float, *, phase: str, dim: int) -> bool:
    """Whether an objective that is still finite is lost: all values of a window are far above `calm`, the
    largest of the calmest window before. A single outlier among the rows does not do that.

    >>> exploded([50.0, 60.0], 1.2, phase="flow matching", dim=2)
    True
    >>> exploded([50.0, 3.0], 1.2, phase="flow matching", dim=2)
    False
    """
    return min(window) > (TIMES * calm if phase == "flow matching" else calm + NATS * dim)
