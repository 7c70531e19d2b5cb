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
    """A fit that was stopped; its flow has the best weights so far, and `history` tells the
    rest."""

    def __init__(self, history: History) -> None:
        super().__init__("interrupted")
        self.history = history


def diverged(window: Sequence[float], baseline_loss: float, *, phase: str, dim: int) -> bool:
    """Whether an objective that is still finite is lost: all of a window is far above
    `baseline_loss`, the largest of the calmest window before. A single outlier among the rows does
    not do that.

    >>> diverged([50.0, 60.0], 1.2, phase="flow matching", dim=2)
    True
    >>> diverged([50.0, 3.0], 1.2, phase="flow matching", dim=2)
    False
    """
    return min(window) > (
        TIMES * baseline_loss if phase == "flow matching" else baseline_loss + NATS * dim
    )
