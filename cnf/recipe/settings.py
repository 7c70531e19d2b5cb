"""The settings of a fit: the measured defaults for a table, and what the user sets instead."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from typing import Any, get_args

import cnf.recipe.defaults as defaults
from cnf.fields import Geometry
from cnf.ode import Gradient
from cnf.training.config import Clock, Phase, Settings
from cnf.training.couplings import Coupling, IndependentCoupling, MinibatchOT
from cnf.training.flow_matching import FlowMatching
from cnf.training.maximum_likelihood import MaximumLikelihood
from cnf.training.objectives import Objective
from cnf.training.penalties import Regularizers
from cnf.training.processes import shared_seconds
from cnf.transforms import Range


@dataclass(frozen=True)
class FitSettings:
    """The settings of `cnf.fit`; every field is a keyword of `cnf.fit`.

    Attributes:
        phases: phases that replace flow matching and likelihood; they have their own budgets and
            objectives.
        gradient: gradient of the likelihood: "discrete", "direct", or "adjoint" for the continuous
            adjoint.
        coupling_block: rows that flow matching pairs by optimal transport; None pairs
            independently, as a flow with a context always does.
        solver_steps: initial steps of the training grid in the likelihood phase.
        error_weight: initial weight of the solver's error in the likelihood phase.
        regularizers: penalties added to the negative log-likelihood.
        nfe_budget: largest number of evaluations per row in scoring; see `MaximumLikelihood`.
        ranges: (lower, upper) of every column, None for no bound; the density is zero outside. None
            for all means that no column is bounded.
        weight_decay: decoupled weight decay of the optimizers.
        clip: largest norm of a gradient.
        patience: number of validations without improvement after which a phase ends.
        tolerance: error bound of the finished flow, in nats.
        matching_name: name of the flow matching phase in the history and in progress displays.
        spent: seconds of the budget that were used before the fit.
        scored: whether the finished flow is scored on held-out and training rows.
        clock: function without arguments that returns the seconds in which a budget is measured.
    """

    phases: tuple[Phase, ...] = ()
    gradient: Gradient = "discrete"
    coupling_block: int | None = None
    solver_steps: int = defaults.SOLVER_STEPS
    error_weight: float = defaults.ERROR_WEIGHT
    regularizers: Regularizers = defaults.PENALTIES
    nfe_budget: int | None = None
    ranges: tuple[Range, ...] | None = None
    weight_decay: float = 0.0
    clip: float = defaults.CLIP_NORM
    patience: int = defaults.FIT_PATIENCE
    tolerance: float = defaults.FIT_TOLERANCE
    matching_name: str = FlowMatching.name
    spent: float = 0.0
    scored: bool = True
    clock: Clock = field(default=shared_seconds, compare=False)

    def __post_init__(self) -> None:
        if self.gradient not in (names := get_args(Gradient)):
            raise ValueError(f"gradient: expected {', '.join(names)}; got {self.gradient!r}")
        if not (isinstance(self.tolerance, Real) and self.tolerance > 0):
            raise ValueError(
                f"tolerance: expected a positive number of nats; got {self.tolerance!r}"
            )

    def matching(self, context_dim: int, geometry: Geometry | None = None) -> FlowMatching:
        """The objective of the first phase; the geometry defaults to a plane."""
        coupling: Coupling = IndependentCoupling()
        if self.coupling_block is not None and not context_dim:
            coupling = MinibatchOT(self.coupling_block, geometry)
        return FlowMatching(
            coupling=coupling, times=defaults.MATCHING_TIMES, name=self.matching_name
        )

    def likelihood(self) -> MaximumLikelihood:
        """The objective of the second phase."""
        return MaximumLikelihood(
            gradient=self.gradient,
            solver_steps=self.solver_steps,
            error_weight=self.error_weight,
            regularizers=self.regularizers,
            nfe_budget=self.nfe_budget,
            tolerance=self.tolerance,
        )

    def training(self) -> Settings:
        """The settings of the trainer."""
        return Settings(
            self.phases,
            weight_decay=self.weight_decay,
            clip=self.clip,
            patience=self.patience,
            clock=self.clock,
        )

    @property
    def short(self) -> bool:
        """Whether the budget is a few seconds."""
        return 0 < self.budget[1] < defaults.SHORT_SECONDS

    @property
    def hasty(self) -> bool:
        """Whether the seconds are too few for careful choices."""
        return 0 < self.budget[1] < defaults.HASTY_SECONDS

    @property
    def budget(self) -> tuple[int, float]:
        """Training steps and seconds of all phases; the one that is not the budget is zero."""
        return self.training().budget


def default_settings(
    *,
    rows: int,
    dim: int,
    context_dim: int = 0,
    steps: int | None,
    seconds: float | None,
    likelihood_share: float | None,
    geometry: Geometry | None = None,
    **chosen: Any,
) -> FitSettings:
    """The settings for a number of rows and columns; the geometry defaults to a plane, and `chosen`
    replaces any of them by name.

    Raises:
        TypeError: for an unknown name.
        ValueError: for an invalid budget, or one given together with phases, which have their own.
    """
    require_known(chosen, (f.name for f in fields(FitSettings)))
    if "phases" in chosen and any(part is not None for part in (steps, seconds, likelihood_share)):
        raise ValueError("phases: expected no steps, seconds or likelihood_share beside it")
    few = dim <= defaults.FEW_COLUMNS
    settings = FitSettings(
        coupling_block=defaults.COUPLING_BLOCK if few else None,
        nfe_budget=None if "regularizers" in chosen else defaults.NFE_BUDGET,
        weight_decay=default_weight_decay(rows),
    )
    settings = replace(settings, **chosen)
    objectives = (settings.matching(context_dim, geometry), settings.likelihood())
    if "phases" in chosen:
        phases = tuple(_with_objective(phase, objectives) for phase in settings.phases)
    else:
        phases = default_phases(
            objectives, rows=rows, dim=dim,
            steps=steps, seconds=seconds, likelihood_share=likelihood_share,
        )  # fmt: skip
    settings = replace(settings, phases=phases)
    settings.training()  # checks the phases
    return settings


def require_known(chosen: Iterable[str], names: Iterable[str]) -> None:
    """Raise a TypeError for an unknown keyword, with similar names as suggestions."""
    known = [*names, "steps", "seconds", "likelihood_share", "checkpoint", "callbacks", "weights"]
    for name in chosen:
        if name not in known:
            close = difflib.get_close_matches(name, known)
            meant = (
                f"did you mean {' or '.join(close)}?" if close else f"expected {', '.join(known)}"
            )
            raise TypeError(f"fit: unknown keyword {name!r}; {meant}")


def _with_objective(phase: Phase, objectives: Iterable[Objective]) -> Phase:
    """A phase of release 0.1, whose objective was a name, with the objective of that name."""
    if not isinstance(phase.objective, str):
        return phase
    warnings.warn(
        "Phase takes an objective, such as cnf.training.FlowMatching(); names of objectives will be"
        " removed in release 0.3",
        DeprecationWarning,
        stacklevel=4,
    )
    named = {objective.name: objective for objective in objectives}
    if phase.objective not in named:
        raise ValueError(f"phase: expected {', '.join(named)}; got {phase.objective!r}")
    return replace(phase, objective=named[phase.objective])


def default_weight_decay(rows: int) -> float:
    """Weight decay for a number of rows: few rows overfit soon, and maximum likelihood changes small
    weights faster."""
    return min(defaults.WEIGHT_DECAY_ROWS / rows, defaults.MOST_WEIGHT_DECAY)


def default_steps(rows: int) -> int:
    """Number of training steps for a number of rows."""
    steps = int(rows * defaults.STEPS_A_ROW)
    return min(max(defaults.FEWEST_FIT_STEPS, steps), defaults.MOST_FIT_STEPS)


def default_likelihood_share(rows: int, seconds: float | None) -> float:
    """Fraction of the budget for maximum likelihood."""
    if seconds is None:
        return defaults.LIKELIHOOD_SHARE_OF_STEPS
    if rows <= defaults.MANY_ROWS_BUDGET:
        return defaults.LIKELIHOOD_SHARE_OF_SECONDS
    return defaults.LIKELIHOOD_SHARE_OF_SECONDS_MANY_ROWS


def default_phases(
    objectives: tuple[FlowMatching, MaximumLikelihood],
    *,
    rows: int,
    dim: int,
    steps: int | None,
    seconds: float | None,
    likelihood_share: float | None,
) -> tuple[Phase, ...]:
    """Flow matching, then maximum likelihood, within a budget of training steps or seconds.

    Raises:
        ValueError: for both budgets, for one that is not positive, or for a share outside [0, 1].
    """
    if steps is not None and seconds is not None:
        raise ValueError("give steps or seconds, not both")
    if steps is None and seconds is None:
        steps = default_steps(rows)
    budget = seconds if steps is None else steps
    if not (isinstance(budget, Real) and budget > 0):
        raise ValueError(f"expected a budget above 0; got steps={steps!r}, seconds={seconds!r}")
    share = likelihood_share
    share = default_likelihood_share(rows, seconds) if share is None else share
    if not (isinstance(share, Real) and 0 <= share <= 1):
        raise ValueError(f"likelihood_share: expected a number in [0, 1]; got {share!r}")
    few = dim <= defaults.FEW_COLUMNS
    batch = defaults.LIKELIHOOD_BATCH_FEW_COLUMNS if few else defaults.LIKELIHOOD_BATCH
    parts = _budgets(steps, seconds, share)
    recipes: tuple[dict[str, Any], ...] = (
        defaults.MATCHING,
        {**defaults.LIKELIHOOD, "batch": batch},
    )
    return tuple(
        Phase(objective, *part, **{**recipe, "validations": _validations(part[0], recipe)})
        for objective, part, recipe in zip(objectives, parts, recipes)
        if any(part)
    )


def _validations(steps: int | None, recipe: dict[str, Any]) -> int:
    """Number of validations of a phase; a short phase has fewer, but always one at its end."""
    most: int = recipe["validations"]
    return most if steps is None else max(1, min(most, steps // defaults.STEPS_A_VALIDATION))


def _budgets(
    steps: int | None, seconds: float | None, share: float
) -> list[tuple[int | None, float | None]]:
    """Training steps and seconds of flow matching and of likelihood."""
    if steps is None:
        assert seconds is not None
        return [(None, defaults.TRAINING_SHARE * part * seconds) for part in (1 - share, share)]
    likelihood = round(share * steps)
    return [(steps - likelihood, None), (likelihood, None)]
