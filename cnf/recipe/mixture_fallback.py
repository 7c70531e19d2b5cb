"""What takes the flow's place at the end, where it is ahead on held-out rows: a Gaussian
mixture."""

from __future__ import annotations

from typing import NamedTuple

from cnf.flows import Base
from cnf.recipe.gaussian_mixtures import LARGE, MixtureBaseline
from cnf.recipe.stacking import FEW, stacked_mixture_if_better
from cnf.recipe.transforms import standardizing_transform
from cnf.rows import Rows
from cnf.training.trainer import Trainer
from cnf.training.validation import validation_subset

# Of the time, for the small mixtures that the flow has to beat.
MIXTURE_SHARE = 0.05
# A fit of fewer updates is a trial, and does not bear a cross-validation.
FEWEST_UPDATES = 500
# Updates of a fit for every component that its mixtures may have.
ROOM_FOR_A_COMPONENT = 20


class FallbackResult(NamedTuple):
    """What was chosen in place of the flow, in words, and the held-out NLL with its standard error
    where that
    is known already: a stack that has learnt the held-out rows since cannot be asked any more."""

    choices: dict[str, str]
    held_out: tuple[float, float] | None


def fall_back_to_mixture(
    trainer: Trainer, train: Rows, valid: Rows, *, refit: bool
) -> FallbackResult | None:
    """Where it may, and a mixture leaves the flow behind on held-out rows, the base of a field at
    rest.

    Args:
        trainer: at its end.
        train: rows that the flow was fitted to.
        valid: rows that validator.
        refit: whether a stack of few rows may learn those that have judged it.
    """
    if not trainer.plan.allow_mixture_fallback:
        return None
    updates, seconds = trainer.settings.budget
    limit = MIXTURE_SHARE * seconds if seconds else None
    if len(train) + len(valid) < FEW and (seconds > 0 or updates >= FEWEST_UPDATES):
        return _fall_back_to_stack(trainer, train, valid, refit=refit, seconds=limit)
    most = updates // ROOM_FOR_A_COMPONENT if updates else LARGE
    found = _mixtures(trainer, train, valid, most=most, seconds=limit).best_if_better_than(
        trainer.best_nll
    )
    if found is None:
        return None
    _install_base(trainer, found)
    return FallbackResult({"base": found.describe()}, None)


def _fall_back_to_stack(
    trainer: Trainer, train: Rows, valid: Rows, *, refit: bool, seconds: float | None
) -> FallbackResult | None:
    flow, free = trainer.flow, trainer.plan.transform_is_free
    plain = standardizing_transform(train, trainer.settings.ranges).to(flow.device)
    transform = plain if free else flow.preprocess
    stack = stacked_mixture_if_better(
        flow, transform, train, valid, refit=refit, seed=trainer.seed, seconds=seconds
    )
    if stack is None:
        return None
    flow.preprocess = transform
    _install_base(trainer, stack.base)
    choices = {"preprocess": "standardized"} if free else {}
    return FallbackResult({**choices, "base": stack.base.describe()}, stack.held_out)


def _install_base(trainer: Trainer, base: Base) -> None:
    trainer.flow.base = base
    trainer.flow.field.load_state_dict(trainer.at_start)


def _mixtures(
    trainer: Trainer, train: Rows, valid: Rows, *, most: int, seconds: float | None
) -> MixtureBaseline:
    """The mixtures that the flow has to beat, judged on the rows that judged it."""
    flow = trainer.flow
    valid = validation_subset(valid)
    (y, _, _), (held_out, _, ladj) = (
        flow.to_model_coordinates(rows.x, rows.context) for rows in (train, valid)
    )
    return MixtureBaseline(
        y, train.weights, held_out, ladj, valid.weights,
        seed=trainer.seed, most=most, seconds=seconds,
    )  # fmt: skip
