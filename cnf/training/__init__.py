"""Training: objectives, the loop, the default recipe `fit`, and `descend` for an objective of one's own."""

from cnf.training.descent import descend
from cnf.training.failures import Interrupted, TrainingError
from cnf.training.fit import fit
from cnf.training.history import History, Record
from cnf.training.regularisers import Regularisers
from cnf.training.settings import Phase, Settings
from cnf.training.tables import fit_table
from cnf.training.trainer import Trainer

__all__ = [
    "History",
    "Interrupted",
    "Phase",
    "Record",
    "Regularisers",
    "Settings",
    "Trainer",
    "TrainingError",
    "descend",
    "fit",
    "fit_table",
]
