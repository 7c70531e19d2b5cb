"""The ingredients of the recipe, each with a switch that removes it.

A switch is a setting of `cnf.fit`, a replacement of a module-level name, or both. Most replace a number
of `cnf.recipe.defaults`. Every replaced name of the package is listed in this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

import torch

from cnf.flows import NormalBase
from cnf.ode import Grid
from cnf.recipe import defaults
from cnf.training import Regularizers
from cnf.transforms import Affine

METHOD = "adams"  # of the training grid
MATCHING, LIKELIHOOD = "cnf.recipe.defaults.MATCHING", "cnf.recipe.defaults.LIKELIHOOD"
# Fits as short as these bear fewer validations.
OF_MATCHING = {**defaults.MATCHING, "validations": 2}
OF_LIKELIHOOD = {**defaults.LIKELIHOOD, "validations": 6}
# Of every fit, the baseline included. No mixture is fitted to fall back to: short fits cannot tell
# whether that pays.
COMMON = {
    MATCHING: OF_MATCHING,
    LIKELIHOOD: OF_LIKELIHOOD,
    "cnf.recipe.defaults.SMALL_COMPONENTS": (),
}
# Updates of flow matching that cost what one of likelihood costs.
CHEAPER = 6


@dataclass(frozen=True)
class Fitted:
    """What the baseline did with a data set: its size, and what it chose."""

    rows: int
    columns: int
    base: str
    preprocess: str


def anywhere(fitted: Fitted) -> bool:
    return True


def in_few_columns(fitted: Fitted) -> bool:
    return fitted.columns <= defaults.FEW_COLUMNS


def in_many_columns(fitted: Fitted) -> bool:
    return not in_few_columns(fitted)


def as_many(matching: int, likelihood: int) -> tuple[int, int]:
    return matching, likelihood


@dataclass(frozen=True)
class Ingredient:
    """A part of the recipe.

    Attributes:
        name: what is left out, and what stands in its place.
        settings: of `cnf.fit` without it.
        patches: names of the package, and their values without it.
        where: whether leaving it out changes anything; elsewhere the fit is the baseline's.
        first: whether it is measured with every seed before the others have their first.
        seed: added to the seed of the fit.
        updates: those of flow matching and of likelihood without it, by those with it.
    """

    name: str
    settings: dict[str, object] = field(default_factory=dict)
    patches: dict[str, object] = field(default_factory=dict)
    where: Callable[[Fitted], bool] = anywhere
    first: bool = True
    seed: int = 0
    updates: Callable[[int, int], tuple[int, int]] = as_many

    @contextmanager
    def off(self) -> Iterator[None]:
        """The package without it."""
        with ExitStack() as stack:
            for target, value in {**COMMON, **self.patches}.items():
                stack.enter_context(patch(target, value))
            yield


def independent(size: int, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """Independent uniform numbers in place of stratified ones."""
    return torch.rand(size, generator=generator, device=device, dtype=torch.float64)


BASELINE = Ingredient("baseline")
INGREDIENTS = (
    Ingredient("nothing (another seed)", seed=100),
    Ingredient(
        "stratified batches",
        patches={"cnf.training.stratified.stratified_uniform": independent},
    ),
    Ingredient(
        "weight on the solver error",
        {"error_weight": 0.0},
        {"cnf.training.solver_control.MOST_ERROR_WEIGHT": 0.0},
    ),
    Ingredient(
        "jittered nodes of the training grid",
        patches={"cnf.ode.Grid.jittered": lambda grid, generator: grid},
    ),
    Ingredient(
        "late-weighted clock of validations", patches={"cnf.training.schedules.LATE_EXPONENT": 1.0}
    ),
    Ingredient("weight decay", {"weight_decay": 0.0}),
    Ingredient(
        "narrower second layer (96, 64) → (96, 96)",
        patches={"cnf.recipe.defaults.MANY_ROWS_PLANE_HIDDEN": (96, 96)},
        where=in_few_columns,
    ),
    Ingredient(
        "frequency by rows and columns → 3",
        patches={"cnf.recipe.defaults.PLANE_FREQUENCY": 3.0},
        where=in_few_columns,
    ),
    Ingredient(
        "width 1.5 of the mixture base → 1",
        patches={"cnf.recipe.defaults.BASE_WIDTH": 1.0},
        where=lambda fitted: "mixture" in fitted.base,
    ),
    Ingredient(
        "heavy-tailed bases",
        patches={
            "cnf.recipe.bases.plain_bases": lambda dim: [NormalBase(dim)],
            "cnf.recipe.bases.ContaminatedBase": lambda base: base,
        },
        where=lambda fitted: "tails" in fitted.base or "Student" in fitted.base,
    ),
    Ingredient(
        "Gaussianized columns",
        patches={"cnf.recipe.defaults.TRANSFORM_GAIN": float("inf")},
        where=lambda fitted: "Gaussianized" in fitted.preprocess,
    ),
    Ingredient(
        "adaptive steps of the training grid → 12",
        patches={"cnf.training.solver_control.steps_after": lambda steps, gap, done: steps},
    ),
    Ingredient("NFE budget (penalty in full, no selection penalty)", {"nfe_budget": None}),
    Ingredient("transport penalty, with its NFE budget", {"regularizers": Regularizers()}),
    Ingredient(
        "optimal-transport coupling",
        {"coupling_block": None},
        where=in_few_columns,
    ),
    Ingredient(
        "mixture base",
        patches={"cnf.recipe.defaults.BASE_GAIN": float("inf")},
        where=lambda fitted: "mixture" in fitted.base,
    ),
    Ingredient(
        "Muon → AdamW at rate 0.003",
        patches={
            LIKELIHOOD: {**OF_LIKELIHOOD, "optimizer": "adam", "learning_rate": 3e-3},
        },
    ),
    Ingredient(
        "moving average of the weights",
        patches={
            MATCHING: {**OF_MATCHING, "ema": 0.0},
            LIKELIHOOD: {**OF_LIKELIHOOD, "ema": 0.0},
        },
    ),
    Ingredient(
        "flow matching first → likelihood for its time",
        updates=lambda matching, likelihood: (0, likelihood + matching // CHEAPER),
    ),
    Ingredient(
        "half of the updates",
        updates=lambda matching, likelihood: (matching // 2, likelihood // 2),
    ),
    Ingredient("weight decay by rows → 0.1", {"weight_decay": 0.1}, first=False),
    Ingredient(
        "selection penalty for evaluations",
        patches={"cnf.training.nfe_control.NATS_AN_EVALUATION": 0.0},
        first=False,
    ),
    Ingredient(
        "placement of the training grid → equal steps",
        patches={
            "cnf.training.solver_control.spread_evenly": lambda solve, steps: Grid.uniform(
                steps, METHOD
            )
        },
        first=False,
    ),
    Ingredient(
        "whitening → standardization",
        patches={"cnf.transforms.Affine.whiten": Affine.standardize},
        first=False,
    ),
    Ingredient(
        "likelihood batch 512 → 256",
        patches={"cnf.recipe.defaults.LIKELIHOOD_BATCH_FEW_COLUMNS": 256},
        where=in_few_columns,
        first=False,
    ),
    Ingredient(
        "width by rows and columns → (128, 128)",
        patches={"cnf.recipe.defaults.MANY_ROWS_TABLE_HIDDEN": (128, 128)},
        where=lambda fitted: in_many_columns(fitted) and fitted.rows > 20_000,
        first=False,
    ),
    Ingredient("gradient clipping", {"clip": 1e9}, first=False),
)
# Of the calibration of a finished flow, which moves its error bars and evaluations and nothing
# else.
CALIBRATION = (
    Ingredient("floors of the error model → 0", patches={"cnf.flows.calibration.FLOORS": (0.0,)}),
    Ingredient("choice of the floor → 0.3", patches={"cnf.flows.calibration.FLOORS": (0.3,)}),
    Ingredient(
        "choice of the quadrature weight → 1",
        patches={"cnf.flows.calibration.QUADRATURE_WEIGHTS": (1.0,)},
    ),
    Ingredient(
        "choice of the placement power → 3", patches={"cnf.flows.calibration.POWERS": (3.0,)}
    ),
    Ingredient(
        "choice of the number of steps → 36", patches={"cnf.flows.calibration.MOST_TRIALS": 1}
    ),
)
