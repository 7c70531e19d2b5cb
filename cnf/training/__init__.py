"""Training: objectives, the loop, and the default recipe `fit`."""

from cnf.training.fit import fit
from cnf.training.history import History, Record
from cnf.training.settings import Phase, Settings
from cnf.training.tables import fit_table
from cnf.training.trainer import Interrupted, Trainer, TrainingError

__all__ = [
    "History",
    "Interrupted",
    "Phase",
    "Record",
    "Settings",
    "Trainer",
    "TrainingError",
    "fit",
    "fit_table",
]
