"""The default recipe: flow matching starts, likelihood finishes, held-out likelihood judges."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from cnf.flows import CNF
from cnf.ode import Gradient
from cnf.recipe.bases import choose_base
from cnf.recipe.defaults import default_settings
from cnf.recipe.mixture_fallback import FallbackResult, fall_back_to_mixture
from cnf.recipe.pilot_fits import affords_pilot_fits, best_transform
from cnf.recipe.transforms import candidate_transforms
from cnf.rows import FEWEST_ROWS, Rows, as_rows, held_out_split
from cnf.training.batches import in_model_coordinates
from cnf.training.checkpoint import CheckpointWriter, resume
from cnf.training.config import FitPlan, Settings
from cnf.training.errors import Interrupted
from cnf.training.history import History
from cnf.training.trainer import Callback, Trainer
from cnf.training.validation import mean_nll, validation_subset
from cnf.transforms import Affine


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
    tolerance: float = 1e-3,
    checkpoint: str | Path | None = None,
    callbacks: tuple[Callback, ...] = (),
    **chosen: Any,
) -> History:
    """Fit a flow to rows of data: flow matching, then maximum likelihood through the ODE.

    Flow matching (Lipman et al. 2023) needs no solve and brings the field near; likelihood
    training follows log p itself, with the solver's error held down. The weights kept are those,
    averaged, that had the best held-out likelihood, less a tenth of a nat for every evaluation
    near and beyond the budget. Parts of the flow left at "auto" are fitted and chosen first, and
    the solver's grid is calibrated at the end. Where a Gaussian mixture, its number of components
    chosen on held-out rows, leads by a tenth of a nat at the end, it becomes the base of a field
    at rest, if base was "auto", there is no context and the field was at rest when it came. Few
    rows stack several by cross-validation, and where no x_valid was given, the stack learns the
    rows set apart too, once it has been judged by them.

    Args:
        flow: what is fitted, in place.
        x: rows (rows, dim), array or tensor, in the user's units.
        x_valid: rows to validator by; without them a tenth of x is set apart.
        context: (rows, context_dim), for a conditional flow.
        context_valid: context of x_valid.
        weights: weight of each row of x, >= 0.
        seed: of everything random here; the flow's own start is drawn where it is made.
        steps: budget in updates; the default grows with the rows.
        seconds: budget in seconds instead.
        gradient: of the likelihood: "discrete", "direct", or "adjoint" for the continuous adjoint.
        likelihood_share: part of the budget for maximum likelihood; 1 is likelihood alone, 0 flow
            matching alone.
        tolerance: largest error bar in nats that the finished flow's grid leaves to a row.
        checkpoint: file that holds the state of the fit while it runs; the state before it stands
            beside it, under the name that ends in .previous. Where they exist already, the fit
            goes on from the newest that is sound, and ends as it would have without the
            interruption. They are yours to delete.
        callbacks: called with the trainer after every update.
        **chosen: any other field of `cnf.training.Settings`, in place of what the recipe chooses.

    Returns:
        The history, with the held-out NLL in nats per row and in the units of x.

    Raises:
        ValueError: for rows that do not fit the flow, are not finite, or too few, and for settings
            that exclude each other.
        TrainingError: if training diverges for good.
        Interrupted: (a KeyboardInterrupt) on Ctrl-C while it is being trained; the flow then has
            the best weights so far, calibrated.

    Example:
        >>> flow = CNF(dim=1, hidden=(8, 8))
        >>> history = fit(flow, torch.randn(200, 1), steps=20)
        >>> history.records[-1].phase
        'likelihood'
    """
    start = time.perf_counter()
    train, valid = _rows(flow, (x, context, weights), (x_valid, context_valid), seed)
    settings = default_settings(
        rows=len(train), dim=flow.dim, context_dim=flow.context_dim, steps=steps, seconds=seconds,
        likelihood_share=likelihood_share, gradient=gradient, tolerance=tolerance, **chosen,
    )  # fmt: skip
    plan = _begin(flow, train, valid, settings, seed)
    spent = time.perf_counter() - start
    trainer = Trainer(flow, train, valid, settings, seed=seed, plan=plan, spent=spent)
    try:
        _train(trainer, checkpoint, callbacks)
    except KeyboardInterrupt as stop:
        trainer.settle()
        raise Interrupted(_finish(trainer, train, valid)) from stop
    return _finish(
        trainer, train, valid, fall_back_to_mixture(trainer, train, valid, refit=x_valid is None)
    )


def _begin(flow: CNF, train: Rows, valid: Rows, settings: Settings, seed: int) -> FitPlan:
    """Fit what the user left free, and see what may give way to a mixture at the end."""
    free = set(flow.automatic)
    choices = fit_parts(flow, train, valid, settings, seed)
    allow_mixture_fallback = "base" in free and not flow.context_dim and at_rest(flow, train)
    return FitPlan(choices, allow_mixture_fallback, "preprocess" in free)


def _finish(
    trainer: Trainer, train: Rows, valid: Rows, mixture: FallbackResult | None = None
) -> History:
    """Calibrate the flow, and say in the history how good it is."""
    flow, history = trainer.flow, trainer.history
    if "solver" in flow.automatic:
        flow.calibrate(train.x, trainer.settings.tolerance, context=train.context)
    chosen, held_out = mixture or ({}, None)
    history.choices = {**trainer.plan.choices, **chosen}
    history.valid_nll, history.valid_se = held_out or mean_nll(flow, valid)
    history.train_nll, history.train_se = mean_nll(flow, validation_subset(train))
    return history


@torch.no_grad()
def at_rest(flow: CNF, rows: Rows) -> bool:
    """Whether the flow's field is zero, as that of a new `GatedField` is."""
    y = flow.to_model_coordinates(rows.x[:16])[0]
    return not flow.field(y.new_tensor(0.5), y).any()


def _train(
    trainer: Trainer, checkpoint: str | Path | None, callbacks: tuple[Callback, ...]
) -> None:
    """Run, writing checkpoints where they are wanted."""
    trainer.callbacks = callbacks
    if checkpoint is not None:
        resume(Path(checkpoint), trainer)
        trainer.callbacks = (*callbacks, CheckpointWriter(Path(checkpoint)))
    trainer.run()


def fit_parts(
    flow: CNF, train: Rows, valid: Rows, settings: Settings, seed: int
) -> dict[str, Any]:
    """Fit what the user left at "auto" to the rows, and say what was chosen.

    The maps stay what they are when the flow is fitted once more; only its grid is placed anew.
    """
    choices: dict[str, Any] = {"preprocess": "given", "base": "given", "rows": len(train)}
    device = flow.device
    if settings.ranges is not None and len(settings.ranges) != flow.dim:
        raise ValueError(
            f"ranges: expected one for each of {flow.dim} columns; got {len(settings.ranges)}"
        )
    if settings.ranges is not None and "preprocess" not in flow.automatic:
        raise ValueError(
            'ranges: expected none, the flow\'s map is given; leave it at "auto" to have ends'
        )
    if "context_map" in flow.automatic and train.context is not None:
        try:
            flow.context_map = Affine.standardize(train.context, train.weights).to(device)
        except ValueError as failure:
            raise ValueError(f"context: {failure}") from failure
    if "preprocess" in flow.automatic:
        maps = candidate_transforms(train, valid, settings.ranges, seed)
        names, candidates = list(maps), [map.to(device) for map in maps.values()]
        chosen = len(maps) - 1
        if chosen and affords_pilot_fits(settings):
            chosen = best_transform(flow, candidates, train, valid, settings, seed=seed)
        flow.preprocess, choices["preprocess"] = candidates[chosen], names[chosen]
    if "base" in flow.automatic:
        parts = (in_model_coordinates(flow, rows) for rows in (train, valid))
        flow.base = choose_base(*parts, seed)
        choices["base"] = flow.base.describe()
    flow.automatic &= {"solver"}
    return choices


def _rows(flow: CNF, given: tuple, valid: tuple, seed: int) -> tuple[Rows, Rows]:
    """Checked training and validation rows."""
    device = flow.device
    train = as_rows("x", *given, device)
    if len(train) < FEWEST_ROWS:
        raise ValueError(f"x: expected at least {FEWEST_ROWS} rows; got {len(train)}")
    if valid[0] is None and valid[1] is not None:
        raise ValueError("context_valid: expected x_valid beside it; got none")
    if valid[0] is None:
        train, held_out = held_out_split(train, seed)
    else:
        held_out = as_rows("x_valid", *valid, None, device)
    if len(held_out) == 0:
        raise ValueError("x_valid: expected at least one row; got none")
    for rows in (train, held_out):
        columns = 0 if rows.context is None else rows.context.shape[1]
        if (rows.x.shape[1], columns) != (flow.dim, flow.context_dim):
            raise ValueError(
                f"the flow has dim={flow.dim}, context_dim={flow.context_dim};"
                f" the rows have {rows.x.shape[1]} columns and {columns} of context"
            )
    return train, held_out
