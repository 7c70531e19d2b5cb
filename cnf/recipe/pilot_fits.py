"""Pilot fits: short fits that choose between transforms where mixtures cannot.

A mixture does not resolve a ridge that is narrower than its components. Maximum likelihood makes a
flow resolve such ridges, sooner if they are straight. The effect of a transform on them shows within
a few training steps.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import replace

import cnf.recipe.defaults as defaults
from cnf.fields import Geometry
from cnf.flows import CNF
from cnf.recipe.bases import base_in_space
from cnf.recipe.settings import FitSettings
from cnf.rows import Rows
from cnf.training.batches import in_model_coordinates
from cnf.training.config import Phase
from cnf.training.errors import TrainingError
from cnf.training.penalties import NO_PENALTIES
from cnf.training.trainer import Trainer
from cnf.transforms import Transform


def affords_pilot_fits(settings: FitSettings) -> bool:
    """Whether two pilot fits are a small part of the budget."""
    steps, seconds = settings.budget
    return steps >= defaults.PILOT_FEWEST_STEPS or seconds >= defaults.PILOT_FEWEST_SECONDS


def pilot_settings(settings: FitSettings, context_dim: int, geometry: Geometry) -> FitSettings:
    """The settings of a pilot fit: short phases, no penalties."""
    short = replace(settings, regularizers=NO_PENALTIES, nfe_budget=None)
    matching = {**defaults.MATCHING, "ema": defaults.PILOT_MATCHING_EMA, "validations": 1}
    likelihood = {**defaults.LIKELIHOOD, "ema": defaults.PILOT_LIKELIHOOD_EMA, "validations": 1}
    phases = (
        Phase(short.matching(context_dim, geometry), defaults.PILOT_MATCHING_STEPS, None, **matching),
        Phase(
            short.likelihood(), defaults.PILOT_LIKELIHOOD_STEPS, None,
            batch=defaults.LIKELIHOOD_BATCH, **likelihood,
        ),
    )  # fmt: skip
    return replace(short, phases=phases)


def best_transform(
    flow: CNF,
    transforms: Sequence[Transform],
    train: Rows,
    valid: Rows,
    settings: FitSettings,
    *,
    seed: int,
) -> int:
    """Index of the transform with the best held-out likelihood after a pilot fit, in the units of the
    data.

    Args:
        flow: flow to fit; it is left unchanged.
        transforms: candidates, fitted to the training rows.
        train: training rows.
        valid: held-out rows.
        settings: settings of the fit.
        seed: seed of every pilot fit.
    """
    short = pilot_settings(settings, flow.context_dim, flow.geometry).training()
    nll = []
    for transform in transforms:
        tried = copy.deepcopy(flow)
        tried.preprocess = transform
        if "base" in flow.automatic:
            y, held_out = (in_model_coordinates(tried, rows) for rows in (train, valid))
            tried.base = base_in_space(tried.geometry, y, held_out, seed)
        trainer = Trainer(tried, train, valid, short, seed=seed)
        with contextlib.suppress(TrainingError):  # its best weights so far are scored
            trainer.run()
        nll.append(trainer.state.best_nll)
    return nll.index(min(nll))
