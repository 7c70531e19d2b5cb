"""Short fits that tell maps apart, where mixtures cannot say which of them a flow gets further
with.

A mixture does not see a ridge that is narrower than its components. A flow makes such ridges
narrow by
likelihood, and sooner where they are straight: what a map does to them shows within a few updates.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import replace

from cnf.flows import CNF
from cnf.recipe.bases import choose_base
from cnf.recipe.defaults import LIKELIHOOD, MATCHING
from cnf.rows import Rows
from cnf.training.batches import in_model_coordinates
from cnf.training.config import Phase, Settings
from cnf.training.errors import TrainingError
from cnf.training.penalties import NONE
from cnf.training.trainer import Trainer
from cnf.transforms import Transform

# A count of updates and not of seconds: a fit that goes on after an interruption chooses as it
# did.
PHASES = (
    Phase("flow matching", 600, None, **{**MATCHING, "ema": 0.99, "validations": 1}),
    Phase("likelihood", 60, None, **{**LIKELIHOOD, "ema": 0.9, "validations": 1}),
)
# Budgets that bear two trials.
FEWEST_UPDATES, FEWEST_SECONDS = 4_000, 100.0


def affords_pilot_fits(settings: Settings) -> bool:
    """Whether the budget is large enough for two trials to be a small part of it."""
    updates, seconds = settings.budget
    return updates >= FEWEST_UPDATES or seconds >= FEWEST_SECONDS


def best_transform(
    flow: CNF,
    maps: Sequence[Transform],
    train: Rows,
    valid: Rows,
    settings: Settings,
    *,
    seed: int,
) -> int:
    """Which of the maps a short fit likes best, by held-out likelihood in the units of the data.

    Args:
        flow: as it will be fitted; left as it is.
        maps: fitted to the training rows.
        train: rows to learn from.
        valid: rows to validator by.
        settings: of the fit; phases and penalties are the trial's own.
        seed: of every trial alike.
    """
    short = replace(settings, phases=PHASES, regularizers=NONE, nfe_budget=None)
    nll = []
    for map in maps:
        tried = copy.deepcopy(flow)
        tried.preprocess = map
        if "base" in flow.automatic:
            parts = (in_model_coordinates(tried, rows) for rows in (train, valid))
            tried.base = choose_base(*parts, seed)
        trainer = Trainer(tried, train, valid, short, seed=seed)
        with contextlib.suppress(TrainingError):  # judged by what it had reached
            trainer.run()
        nll.append(trainer.best_nll)
    return nll.index(min(nll))
