"""The fallback: a Gaussian mixture with a better held-out NLL replaces the flow."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from cnf.flows import CNF, Base
from cnf.recipe.bases import grown_base
from cnf.recipe.defaults import (
    GROWN_SHARE,
    HASTY_MIXTURE_SHARE,
    LARGE_COMPONENTS,
    MIN_GAIN,
    MIXTURE_SHARE,
    SHORT_STACK_SHARE,
    STACKING_FOLDS,
    STACKING_ROWS,
    STACKING_STEPS,
    STEPS_A_COMPONENT,
)
from cnf.recipe.mixture_baseline import MixtureBaseline
from cnf.recipe.preparation import FitPlan
from cnf.recipe.settings import FitSettings
from cnf.recipe.sphere_kernels import sphere_kernels
from cnf.recipe.stacking import Stack
from cnf.recipe.transforms import standardizing_transform
from cnf.rows import Rows, weighted_nll
from cnf.training.batches import in_model_coordinates
from cnf.training.trainer import Trainer
from cnf.training.validation import validation_subset


class FallbackResult(NamedTuple):
    """The mixture that replaced the flow.

    Attributes:
        choices: what was chosen, by name.
        held_out: held-out NLL and its standard error, if already known: once a stack is refitted to
            the held-out rows, they can no longer score it.
        refit: whether it was refitted to them.
    """

    choices: dict[str, str]
    held_out: tuple[float, float] | None
    refit: bool = False


class GrownMixture(NamedTuple):
    """A mixture that a flow has to beat, and its held-out NLL in nats per row, in the data's units."""

    base: Base
    nll: float


def stack_of_few_rows(
    flow: CNF, train: Rows, valid: Rows, plan: FitPlan, settings: FitSettings, seed: int
) -> Stack | None:
    """The stack that a flow of few rows has to beat; None if there are many rows, if the fit is short,
    or if the plan allows no fallback."""
    steps, seconds = settings.budget
    few = len(train) >= STACKING_FOLDS and len(train) + len(valid) < STACKING_ROWS
    long = seconds > 0 or steps >= STACKING_STEPS
    if not (plan.allow_mixture_fallback and flow.geometry.flat and few and long):
        return None
    free, share = plan.transform_is_free, SHORT_STACK_SHARE if settings.short else MIXTURE_SHARE
    plain = standardizing_transform(train, settings.ranges).to(flow.device) if free else None
    return Stack(
        plain or flow.preprocess, train, valid,
        seed=seed, seconds=share * seconds or None, clock=settings.clock,
    )  # fmt: skip


def mixture_before_training(
    flow: CNF, train: Rows, valid: Rows, plan: FitPlan, settings: FitSettings, seed: int
) -> GrownMixture | None:
    """The mixture that a short fit has to beat, fitted first so that training knows its remaining
    seconds; None for other fits, and if the plan allows no fallback."""
    few = len(train) + len(valid) < STACKING_ROWS
    if few or not (settings.hasty and plan.allow_mixture_fallback and flow.geometry.flat):
        return None
    return _grown_mixture(flow, train, valid, settings, seed)


def train_unless_overtaken(trainer: Trainer, stack: Stack | None) -> None:
    """Train to the end, or, for few rows, until the flow is behind the stack and its held-out NLL
    rises, which is a sign of overfitting."""
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
    trainer: Trainer,
    settings: FitSettings,
    stack: Stack | None,
    grown: GrownMixture | None,
    *,
    refit: bool,
) -> FallbackResult | None:
    """If the plan allows it and a mixture beats the flow on held-out rows, install it as the base and
    reset the field to zero.

    Args:
        trainer: trainer at the end of its run.
        settings: settings of the fit.
        stack: stack of mixtures, if there are few rows.
        grown: mixture of a short fit.
        refit: whether the stack is finally refitted to the held-out rows as well.
    """
    plan = FitPlan(**trainer.metadata)
    if stack is not None:
        return _fall_back_to_stack(trainer, plan, stack, refit=refit)
    if not plan.allow_mixture_fallback:
        return None
    if not trainer.flow.geometry.flat:
        return _fall_back_to_kernels(trainer)
    if settings.budget[1]:
        found = _grown_if_better(trainer, settings, grown)
    else:
        found = _fitted_if_better(trainer, settings.budget[0])
    if found is None:
        return None
    _install_base(trainer, found)
    return FallbackResult({"base": found.describe()}, None)


def _fall_back_to_kernels(trainer: Trainer) -> FallbackResult | None:
    """On the sphere, replace the flow by kernels if they beat it by `MIN_GAIN`."""
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
    return FallbackResult({**choices, "base": base.describe()}, stack.nll, refit)


def _install_base(trainer: Trainer, base: Base) -> None:
    trainer.flow.base = base
    trainer.flow.field.load_state_dict(trainer.initial)


def _grown_if_better(
    trainer: Trainer, settings: FitSettings, grown: GrownMixture | None
) -> Base | None:
    """A mixture that beats the flow by enough to replace it; in a short fit, any lead is enough."""
    flow, train, valid = trainer.flow, trainer.train, trainer.valid
    grown = grown or _grown_mixture(flow, train, valid, settings, trainer.seed)
    gain = 0.0 if settings.hasty else MIN_GAIN
    return grown.base if trainer.state.best_nll - grown.nll > gain else None


def _fitted_if_better(trainer: Trainer, steps: int) -> Base | None:
    """The same for a budget of steps, in which no clock may influence the result."""
    y, held_out, ladj = _judged(trainer.flow, trainer.train, trainer.valid)
    most = min(LARGE_COMPONENTS, steps // STEPS_A_COMPONENT)
    baseline = MixtureBaseline(y, held_out, ladj, seed=trainer.seed, most=most).fit()
    return baseline.best_if_better_than(trainer.state.best_nll)


def _grown_mixture(
    flow: CNF, train: Rows, valid: Rows, settings: FitSettings, seed: int
) -> GrownMixture:
    """The mixture that can be grown in its share of the seconds."""
    y, held_out, ladj = _judged(flow, train, valid)
    share = HASTY_MIXTURE_SHARE if settings.hasty else GROWN_SHARE
    base = grown_base(
        y, held_out, seconds=share * settings.budget[1], clock=settings.clock, seed=seed
    )
    return GrownMixture(base, weighted_nll(base.log_prob(held_out.x) + ladj, held_out.weights)[0])


def _judged(flow: CNF, train: Rows, valid: Rows) -> tuple[Rows, Rows, Tensor]:
    """Training rows and held-out rows in model coordinates, and the log-Jacobian of the latter."""
    judges = validation_subset(valid)
    held_out, _, ladj = flow.to_model_coordinates(judges.x, judges.context)
    return in_model_coordinates(flow, train), Rows(held_out, weights=judges.weights), ladj
