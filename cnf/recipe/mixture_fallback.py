"""The fallback: a Gaussian mixture that is ahead on held-out rows replaces the flow."""

from __future__ import annotations

from typing import NamedTuple

from cnf.flows import CNF, Base
from cnf.recipe.defaults import (
    HASTY_COMPONENTS,
    HASTY_ROWS,
    HASTY_SHARE,
    LARGE_COMPONENTS,
    MIN_GAIN,
    MIXTURE_ROWS,
    MIXTURE_SHARE,
    STACKING_FOLDS,
    STACKING_ROWS,
    STACKING_STEPS,
    START_SHARE,
    STEPS_A_COMPONENT,
)
from cnf.recipe.mixture_baseline import MixtureBaseline
from cnf.recipe.preparation import FitPlan
from cnf.recipe.settings import FitSettings
from cnf.recipe.sphere_kernels import sphere_kernels
from cnf.recipe.stacking import Stack
from cnf.recipe.transforms import standardizing_transform
from cnf.rows import Rows
from cnf.training.batches import in_model_coordinates
from cnf.training.trainer import Trainer
from cnf.training.validation import validation_subset


class FallbackResult(NamedTuple):
    """What replaced the flow.

    Attributes:
        choices: what was chosen, by name.
        held_out: held-out NLL and its standard error, where they are known already: a stack that
            was fitted to the held-out rows since cannot be judged by them.
    """

    choices: dict[str, str]
    held_out: tuple[float, float] | None


def stack_of_few_rows(
    flow: CNF, train: Rows, valid: Rows, plan: FitPlan, settings: FitSettings, seed: int
) -> Stack | None:
    """The stack that a flow of few rows has to beat; None where there are many, where the fit is
    short, or where the plan allows none."""
    steps, seconds = settings.budget
    few = len(train) >= STACKING_FOLDS and len(train) + len(valid) < STACKING_ROWS
    long = seconds > 0 or steps >= STACKING_STEPS
    if not (plan.allow_mixture_fallback and flow.geometry.flat and few and long):
        return None
    free, share = plan.transform_is_free, START_SHARE if settings.short else MIXTURE_SHARE
    plain = standardizing_transform(train, settings.ranges).to(flow.device) if free else None
    return Stack(
        plain or flow.preprocess, train, valid,
        seed=seed, seconds=share * seconds or None, clock=settings.clock,
    )  # fmt: skip


def train_unless_overtaken(trainer: Trainer, stack: Stack | None) -> None:
    """Train to the end, or, for few rows, until the flow is behind the stack and falls back
    further: it then learns its rows by heart."""
    if stack is not None and trainer.step < STACKING_STEPS:
        marks = (STACKING_STEPS // 2, STACKING_STEPS)
        for mark in marks:
            trainer.run(until=mark)
        found = [
            record.valid_nll
            for record in trainer.history.records
            if record.step in marks and record.valid_nll is not None
        ]
        if len(found) == len(marks) and found[-1] > max(found[0], stack.nll[0]):
            trainer.settle()
            return
    trainer.run()


def fall_back_to_mixture(
    trainer: Trainer, settings: FitSettings, stack: Stack | None, *, refit: bool
) -> FallbackResult | None:
    """Where the plan allows it and a mixture beats the flow on held-out rows, make it the base of a
    field at rest.

    Args:
        trainer: at its end.
        settings: of the fit.
        stack: of few rows.
        refit: whether the stack is fitted to the held-out rows in the end.
    """
    plan = FitPlan(**trainer.metadata)
    if stack is not None:
        return _fall_back_to_stack(trainer, plan, stack, refit=refit)
    if not plan.allow_mixture_fallback:
        return None
    if not trainer.flow.geometry.flat:
        return _fall_back_to_kernels(trainer)
    steps, seconds = settings.budget
    hasty = settings.hasty
    share, most_rows = (HASTY_SHARE, HASTY_ROWS) if hasty else (MIXTURE_SHARE, MIXTURE_ROWS)
    most = HASTY_COMPONENTS if hasty else LARGE_COMPONENTS
    if steps:
        most = min(most, steps // STEPS_A_COMPONENT)
    limit = share * seconds or None
    baseline = _baseline(trainer, settings, most=most, most_rows=most_rows, seconds=limit)
    found = baseline.best_if_better_than(trainer.state.best_nll)
    if found is None:
        return None
    _install_base(trainer, found)
    return FallbackResult({"base": found.describe()}, None)


def _fall_back_to_kernels(trainer: Trainer) -> FallbackResult | None:
    """On the sphere: kernels in place of the flow, where they are surely better."""
    flow = trainer.flow
    train, valid = (in_model_coordinates(flow, rows) for rows in (trainer.train, trainer.valid))
    kernels, nll = sphere_kernels(train, valid, trainer.seed)
    if nll > trainer.state.best_nll - MIN_GAIN:
        return None
    _install_base(trainer, kernels)
    return FallbackResult({"base": f"{kernels.describe()}, one at each row"}, None)


def _fall_back_to_stack(
    trainer: Trainer, plan: FitPlan, stack: Stack, *, refit: bool
) -> FallbackResult | None:
    flow = trainer.flow
    if stack.is_led_by(flow):
        return None
    base = stack.of_all_rows() if refit else stack.mixture
    flow.preprocess = stack.transform
    _install_base(trainer, base.to(flow.dtype))
    choices = {"preprocess": "standardized"} if plan.transform_is_free else {}
    return FallbackResult({**choices, "base": base.describe()}, stack.nll)


def _install_base(trainer: Trainer, base: Base) -> None:
    trainer.flow.base = base
    trainer.flow.field.load_state_dict(trainer.initial)


def _baseline(
    trainer: Trainer, settings: FitSettings, *, most: int, most_rows: int, seconds: float | None
) -> MixtureBaseline:
    """The mixtures that the flow has to beat, judged on the rows that judged it."""
    flow, train, valid = trainer.flow, trainer.train, validation_subset(trainer.valid)
    (y, _, _), (held_out, _, ladj) = (
        flow.to_model_coordinates(rows.x, rows.context) for rows in (train, valid)
    )
    return MixtureBaseline(
        Rows(y, weights=train.weights),
        Rows(held_out, weights=valid.weights),
        ladj, seed=trainer.seed, most=most, most_rows=most_rows, seconds=seconds,
        clock=settings.clock,
    ).fit()  # fmt: skip
