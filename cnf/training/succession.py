"""What takes the flow's place at the end, where it is ahead on held-out rows: a Gaussian mixture."""

from __future__ import annotations

from typing import NamedTuple

from cnf.flows import Base
from cnf.training.choices import standardised
from cnf.training.data import Rows
from cnf.training.few_rows import FEW, stack_ahead
from cnf.training.judge import judging_rows
from cnf.training.mixtures import LARGE, Rival
from cnf.training.trainer import Trainer

# Of the time, for the small mixtures that the flow has to beat.
MIXTURE_SHARE = 0.05
# A fit of fewer updates is a trial, and does not bear a cross-validation.
FEWEST_UPDATES = 500
# Updates of a fit for every component that its mixtures may have.
ROOM_FOR_A_COMPONENT = 20


class Successor(NamedTuple):
    """What was chosen in place of the flow, in words, and the held-out NLL with its standard error where that
    is known already: a stack that has learnt the held-out rows since cannot be asked any more."""

    choices: dict[str, str]
    held_out: tuple[float, float] | None


def give_way(trainer: Trainer, train: Rows, valid: Rows, *, refit: bool) -> Successor | None:
    """Where it may, and a mixture leaves the flow behind on held-out rows, the base of a field at rest.

    Args:
        trainer: at its end.
        train: rows that the flow was fitted to.
        valid: rows that judge.
        refit: whether a stack of few rows may learn those that have judged it.
    """
    if not trainer.beginning.may_give_way:
        return None
    updates, seconds = trainer.settings.budget
    limit = MIXTURE_SHARE * seconds if seconds else None
    if len(train) + len(valid) < FEW and (seconds > 0 or updates >= FEWEST_UPDATES):
        return _give_way_to_stack(trainer, train, valid, refit=refit, seconds=limit)
    most = updates // ROOM_FOR_A_COMPONENT if updates else LARGE
    found = _rival(trainer, train, valid, most=most, seconds=limit).ahead_of(trainer.best_nll)
    if found is None:
        return None
    _take_place(trainer, found)
    return Successor({"base": found.describe()}, None)


def _give_way_to_stack(
    trainer: Trainer, train: Rows, valid: Rows, *, refit: bool, seconds: float | None
) -> Successor | None:
    flow, free = trainer.flow, trainer.beginning.map_is_free
    plain = standardised(train, trainer.settings.ranges).to(flow.like.device)
    to_model = plain if free else flow.preprocess
    stack = stack_ahead(flow, to_model, train, valid, refit=refit, seed=trainer.seed, seconds=seconds)
    if stack is None:
        return None
    flow.preprocess = to_model
    _take_place(trainer, stack.base)
    choices = {"preprocess": "standardised"} if free else {}
    return Successor({**choices, "base": stack.base.describe()}, stack.held_out)


def _take_place(trainer: Trainer, base: Base) -> None:
    trainer.flow.base = base
    trainer.flow.field.load_state_dict(trainer.at_start)


def _rival(trainer: Trainer, train: Rows, valid: Rows, *, most: int, seconds: float | None) -> Rival:
    """The mixtures that the flow has to beat, judged on the rows that judged it."""
    flow = trainer.flow
    valid = judging_rows(valid)
    (y, _), (held_out, ladj) = (flow.preprocess.to_model(rows.x) for rows in (train, valid))
    dtype = flow.like.dtype
    return Rival(
        y.to(dtype), train.weights, held_out.to(dtype), ladj, valid.weights,
        seed=trainer.seed, most=most, seconds=seconds,
    )  # fmt: skip
