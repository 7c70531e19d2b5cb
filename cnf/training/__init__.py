"""The training engine, for a module, an objective and rows. It is independent of tables, mixtures and
the defaults of the recipe.

Trainer, Phase, Settings, History      the loop, its settings, and its records
Objective                              what a phase minimizes: FlowMatching, MaximumLikelihood
SnapshotMatching                       flow matching through rows at several times, on a SplinePath
LinearPath                             a probability path (z, y, t) -> (x_t, u_t)
IndependentCoupling, MinibatchOT       pairings of source points with rows
RowStream                              rows that do not fit into memory together
EMAValidator                           validation of averaged weights on held-out rows
WarmupCosine                           a learning-rate schedule
ProgressBar                            a callback that shows the progress of a fit
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
