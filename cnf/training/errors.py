"""How a fit may fail, or end before its time."""

from __future__ import annotations

from cnf.training.history import History


class TrainingError(RuntimeError):
    """Training diverged and could not be brought back."""


class Interrupted(KeyboardInterrupt):
    """A fit that was stopped; its flow has the best weights so far.

    Attributes:
        history: of the fit so far.
    """

    def __init__(self, history: History) -> None:
        super().__init__("interrupted")
        self.history = history
