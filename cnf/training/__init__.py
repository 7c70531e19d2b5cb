"""The training engine: a module, an objective, rows. It knows no tables, no mixtures and no
defaults.

Trainer, Phase, Settings, History      the loop, what it is told, what it tells
Objective                              what a phase minimizes: FlowMatching, MaximumLikelihood
SnapshotMatching                       flow matching through rows at several times, on a SplinePath
LinearPath                             a probability path (z, y, t) -> (x_t, u_t)
IndependentCoupling, MinibatchOT       which source point is paired with which row
RowStream                              rows that do not fit into memory together
EMAValidator                           what judges weights on held-out rows
WarmupCosine                           the learning rate
ProgressBar                            a callback that shows how far a fit is
minimize                               a plain loop for other models
"""

from __future__ import annotations

from typing import Any

from cnf.deprecation import renamed
from cnf.training.callbacks import Callback
from cnf.training.config import Phase, Settings
from cnf.training.couplings import Coupling, IndependentCoupling, MinibatchOT
from cnf.training.errors import Interrupted, TrainingError
from cnf.training.flow_matching import FlowMatching
from cnf.training.history import History, Record
from cnf.training.maximum_likelihood import MaximumLikelihood
from cnf.training.minimize import minimize
from cnf.training.objectives import Loss, Objective, Task
from cnf.training.paths import GeodesicPath, LinearPath, Path, SplinePath
from cnf.training.penalties import Regularizers
from cnf.training.progress import ProgressBar
from cnf.training.schedules import Schedule, WarmupCosine
from cnf.training.snapshots import SnapshotMatching
from cnf.training.streams import RowStream
from cnf.training.trainer import Trainer
from cnf.training.validation import EMAValidator, ValidationResult, Validator

__all__ = [
    "Callback",
    "Coupling",
    "EMAValidator",
    "FlowMatching",
    "GeodesicPath",
    "History",
    "IndependentCoupling",
    "Interrupted",
    "LinearPath",
    "Loss",
    "MaximumLikelihood",
    "MinibatchOT",
    "Objective",
    "Path",
    "Phase",
    "ProgressBar",
    "Record",
    "Regularizers",
    "RowStream",
    "Schedule",
    "Settings",
    "SnapshotMatching",
    "SplinePath",
    "Task",
    "Trainer",
    "TrainingError",
    "ValidationResult",
    "Validator",
    "WarmupCosine",
    "minimize",
]


def __getattr__(name: str) -> Any:
    found = renamed(__name__, name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
