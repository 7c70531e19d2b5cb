"""Errors of a fit, and its interruption."""

from __future__ import annotations

from cnf.training.history import History


class TrainingError(RuntimeError):
    """Training diverged and could not recover."""


class Interrupted(KeyboardInterrupt):
    """The user stopped a fit; its flow has the best weights so far.

    Attributes:
        history: history of the fit so far.
    """

    def __init__(self, history: History) -> None:
        super().__init__("interrupted")
        self.history = history
