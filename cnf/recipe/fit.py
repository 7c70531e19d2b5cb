"""The default recipe: flow matching, then maximum likelihood; held-out likelihood selects weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cnf.deprecation import renamed_argument
from cnf.fields import AT_REST
from cnf.flows import CNF
from cnf.inputs import as_seed
from cnf.ode import Gradient
from cnf.recipe.calibration import calibrate
from cnf.recipe.defaults import (
    CALIBRATION_SHARE,
    FEWEST_STEPS_IN_TIME,
    FIT_TOLERANCE,
    SOURCE_LIKELIHOOD_SHARE,
    SUBSET_SHARE,
)
from cnf.recipe.mixture_fallback import (
    FallbackResult,
    GrownMixture,
    fall_back_to_mixture,
    mixture_before_training,
    stack_of_few_rows,
    train_unless_overtaken,
)
from cnf.recipe.preparation import FitPlan, checked_rows, prepare, stays_mixture
from cnf.recipe.settings import FitSettings, default_settings
from cnf.recipe.source import start_from
from cnf.recipe.stacking import Stack
from cnf.recipe.subsets import fit_subsets
from cnf.training.callbacks import Callback, as_callbacks
from cnf.training.checkpoint import CheckpointWriter, resume
from cnf.training.errors import Interrupted
from cnf.training.history import History
from cnf.training.modes import with_gradients
from cnf.training.streams import RowStream
from cnf.training.trainer import Trainer
from cnf.training.validation import mean_nll, validation_subset


@with_gradients
@renamed_argument("watchers", "callbacks")
def fit(
    flow: CNF,
    x: Any,
    x_valid: Any = None,
    *,
    context: Any = None,
    context_valid: Any = None,
    weights: Any = None,
    seed: int = 0,
    steps: int | None = None,
    seconds: float | None = None,
    gradient: Gradient = "discrete",
    likelihood_share: float | None = None,
    tolerance: float = FIT_TOLERANCE,
    checkpoint: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    any_subset: bool = False,
    source: Any = None,
    stream: RowStream | None = None,
    **chosen: Any,
) -> History:
    """Fit a flow to rows of data: flow matching, then maximum likelihood through the ODE.

    Flow matching (Lipman et al. 2023) needs no ODE solve and gives a good initial field. Maximum
    likelihood then optimizes log p itself, and controls the error of the solver. The fit keeps the
    averaged weights with the best held-out likelihood, minus a tenth of a nat for every evaluation
    near and beyond the budget.

    Parts of the flow left at "auto" are built and fitted first. They include the default field, whose
    width and frequency were measured for the number of rows and columns, and whose weights are drawn
    with `seed`. The solver's grid is calibrated at the end. If `base` was "auto", there is no context
    and the field was zero-initialized, a Gaussian mixture that beats the flow by a tenth of a nat on
    held-out rows replaces it (mixture as base, zero field). With few rows, this fallback is a stack of
    mixtures chosen by cross-validation. Training then ends after 500 steps if the flow is behind the
    stack and its held-out likelihood gets worse. Without `x_valid`, the stack is refitted to all rows
    once the held-out rows have scored it.

    Args:
        flow: fitted in place.
        x: rows (rows, dim), array or tensor, in the user's units.
        x_valid: rows to validate on; without them a tenth of x is held out.
        context: (rows, context_dim), for a conditional flow.
        context_valid: context of x_valid.
        weights: weight of each row of x, >= 0.
        seed: random seed.
        steps: budget in training steps of the flow; by default it grows with the rows. The fit of a
            source takes a third as many in addition.
        seconds: budget in seconds instead; below 10, and with 2,000 rows or more, the flow stays a
            mixture of Gaussians.
        gradient: gradient of the likelihood: "discrete", "direct", or "adjoint" for the continuous
            adjoint.
        likelihood_share: fraction of the budget for maximum likelihood; 1 is likelihood alone, 0 flow
            matching alone.
        tolerance: largest error bound of a row in nats that the finished flow's grid may have.
        checkpoint: file that holds the state of the fit while it runs. The state before it is kept
            beside it, in a file whose name ends in .previous. If they exist, the fit resumes from the
            newest valid one, with the same result as an uninterrupted fit. They are not deleted.
        callbacks: called with the `cnf.training.Trainer` after every training step.
        any_subset: whether to fit a conditional network as well, with which `CNF.marginal` and
            `CNF.conditional` need one solve. It takes a fifth of the seconds; with a budget in
            steps, it takes a quarter of their time in addition.
        source: rows (rows, dim) to transport to those of x, or a fitted flow of their density. The
            density of the source, fitted with a third of the budget, is then the base of the flow, and
            flow matching pairs rows by optimal transport.
        stream: training rows that are too many for memory, as parts that are `Rows`. Then x is a sample
            of them, which determines every choice, and x_valid contains none of them. A network for
            any subset is fitted to the sample.
        **chosen: any other field of `cnf.recipe.FitSettings`, which replaces the recipe's choice.

    Returns:
        The history, with the held-out NLL in nats per row and in the units of x.

    Raises:
        ValueError: if rows do not match the flow, are not finite, or too few, or if settings exclude
            each other.
        TypeError: for an unknown keyword.
        TrainingError: if training diverges for good.
        Interrupted: (a KeyboardInterrupt) on Ctrl-C during training; the flow then has the best
            weights so far, and is calibrated.

    Example:
        >>> import torch
        >>> flow = CNF(dim=1)
        >>> history = fit(flow, torch.randn(200, 1), steps=20)
        >>> history.records[-1].phase
        'likelihood'
    """
    if stream is not None and (x_valid is None or weights is not None):
        raise ValueError("stream: expected x_valid beside it, and no weights")
    seed, callbacks = as_seed(seed), as_callbacks(callbacks)
    train, valid = checked_rows(flow, (x, context, weights), (x_valid, context_valid), seed)
    rows = len(train) if stream is None else stream.rows
    whole, flow.subsets = seconds, None
    if source is not None and seconds is not None and likelihood_share is None:
        likelihood_share = SOURCE_LIKELIHOOD_SHARE
    if seconds is not None and any_subset:
        seconds = (1 - SUBSET_SHARE) * seconds
    settings = default_settings(
        rows=rows, dim=flow.dim, context_dim=flow.context_dim,
        geometry=None if flow.geometry.flat else flow.geometry, steps=steps, seconds=seconds,
        likelihood_share=likelihood_share, gradient=gradient, tolerance=tolerance, **chosen,
    )  # fmt: skip
    start = settings.clock()
    if source is not None:
        settings = start_from(
            source, flow, train, settings, fit,
            steps=steps, seconds=seconds, checkpoint=checkpoint, seed=seed,
        )  # fmt: skip
    given = rows + (len(valid) if x_valid is None else 0)
    free = likelihood_share is None and "phases" not in chosen
    as_mixture = free and stays_mixture(flow, train, valid, settings)
    plan = prepare(flow, train, valid, settings, seed, rows=given, as_mixture=as_mixture)
    prepared = settings.clock()
    stack = stack_of_few_rows(flow, train, valid, plan, settings, seed)
    grown = mixture_before_training(flow, train, valid, plan, settings, seed)
    if settings.hasty:  # otherwise the seconds beside training suffice for the mixture
        prepared = settings.clock()
    trainer = Trainer(
        flow, train, valid, settings.training(),
        seed=seed, metadata=asdict(plan), callbacks=callbacks, stream=stream,
        spent=settings.spent + prepared - start,
    )  # fmt: skip
    if as_mixture:
        history = _finish(trainer, settings)
    else:
        history = _trained(trainer, settings, checkpoint, stack, grown, refit=x_valid is None)
    if any_subset:
        share = None if whole is None else SUBSET_SHARE * whole
        try:
            flow.subsets = fit_subsets(
                flow, train, valid, settings,
                seed=seed, steps=steps, seconds=share, callbacks=callbacks,
            )  # fmt: skip
        except KeyboardInterrupt as stop:
            raise Interrupted(history) from stop
    return history


def _trained(
    trainer: Trainer,
    settings: FitSettings,
    checkpoint: str | Path | None,
    stack: Stack | None,
    grown: GrownMixture | None,
    *,
    refit: bool,
) -> History:
    """Train, from the checkpoint if there is one, and replace the flow if a mixture is better; see
    `fall_back_to_mixture` for `stack`, `grown` and `refit`."""
    if checkpoint is not None:
        resume(Path(checkpoint), trainer)
        if trainer.processes.first:
            trainer.callbacks += (CheckpointWriter(Path(checkpoint)),)
    try:
        train_unless_overtaken(trainer, stack)
    except KeyboardInterrupt as stop:
        trainer.settle()
        raise Interrupted(_finish(trainer, settings)) from stop
    mixture = fall_back_to_mixture(trainer, settings, stack, grown, refit=refit)
    if mixture is None and settings.budget[1] and trainer.step < FEWEST_STEPS_IN_TIME:
        warnings.warn(
            f"the seconds allowed {trainer.step} training steps; expected at least"
            f" {FEWEST_STEPS_IN_TIME}: the flow is hardly trained, give more seconds",
            stacklevel=2,
        )
    return _finish(trainer, settings, mixture)


def _finish(
    trainer: Trainer, settings: FitSettings, mixture: FallbackResult | None = None
) -> History:
    """Calibrate the flow, and record its held-out NLL in the history."""
    flow, history, train = trainer.flow, trainer.history, trainer.train
    if "solver" in flow.automatic:
        budget = settings.budget[1]
        seconds = CALIBRATION_SHARE * budget if budget else None
        calibrate(flow, train, settings.tolerance, seconds=seconds, clock=settings.clock)
    mixture = mixture or FallbackResult({}, None)
    history.choices = {**FitPlan(**trainer.metadata).choices, **mixture.choices}
    if flow.field.resting:
        history.choices["field"] = AT_REST
    history.refit = mixture.refit
    if settings.scored:
        history.valid_nll, history.valid_se = mixture.held_out or mean_nll(flow, trainer.valid)
        history.train_nll, history.train_se = mean_nll(flow, validation_subset(train))
    return history
