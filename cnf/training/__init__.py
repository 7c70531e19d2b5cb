"""The training engine: a module, an objective, rows. It knows no tables, no mixtures and no
defaults.

Trainer, Phase, Settings, History    the loop, what it is told, what it tells
minimize                             the loop for an objective of one's own
"""

from __future__ import annotations

from typing import Any

from cnf.deprecation import renamed
from cnf.training.config import Phase, Settings
from cnf.training.errors import Interrupted, TrainingError
from cnf.training.history import History, Record
from cnf.training.minimize import minimize
from cnf.training.penalties import Regularizers
from cnf.training.trainer import Trainer

__all__ = [
    "History",
    "Interrupted",
    "Phase",
    "Record",
    "Regularizers",
    "Settings",
    "Trainer",
    "TrainingError",
    "minimize",
]


def __getattr__(name: str) -> Any:
    found = renamed(__name__, name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
