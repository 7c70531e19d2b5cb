"""Maximum likelihood fit of the distribution over discrete states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import cnf.recipe.defaults as defaults
from cnf.recipe.tables.budget import Budget
from cnf.rows import evenly_spaced, weighted_nll
from cnf.tables.discrete import DiscreteModel
from cnf.training.batches import Batches, Sampler
from cnf.training.config import Clock
from cnf.training.minimize import minimize
from cnf.training.processes import Processes
from cnf.training.schedules import WarmupCosine
from cnf.training.streams import PooledBatches, RowStream
from cnf.training.validation import snapshot


@dataclass(frozen=True)
class DiscreteRows:
    """Discrete states of cells, with features and weights.

    Attributes:
        states: discrete states (rows, columns).
        extra: conditioning features (rows, features).
        given: mask of the known states (rows, columns).
        weights: weights (rows,).
    """

    states: Tensor
    extra: Tensor
    given: Tensor
    weights: Tensor

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """The arguments of the likelihood: states, extra and given."""
        return self.states, self.extra, self.given


def fit_discrete(
    model: DiscreteModel,
    train: DiscreteRows,
    valid: DiscreteRows,
    *,
    budget: Budget,
    seed: int,
    stream: RowStream | None = None,
) -> float:
    """Fit, keep the weights with the best held-out likelihood, and return their NLL in nats per row.

    If there is a stream of `DiscreteRows`, the model is trained on it, and `train` is a sample of it.
    """
    if not model.non_constant:
        return 0.0
    model.start_from(train.states.where(~train.given, -1), train.weights)
    batches: Sampler = Batches(train.states, train.extra, train.weights, train.given)
    if stream is not None:
        batches = PooledBatches(stream, DiscreteRows.parts, seed, Processes())
    generator = torch.Generator(train.states.device).manual_seed(seed)
    best = BestWeights(model, valid)
    seconds = budget.discrete_seconds
    end = None if seconds is None else budget.clock() + seconds

    def objective(step: int) -> tuple[Tensor, Tensor]:
        loss = -model.log_prob(*batches.draw(defaults.DISCRETE_BATCH, generator)).mean()
        return loss, loss

    def on_time(run: Any) -> None:
        if end is not None and budget.clock() > end:
            run.stop()

    steps = budget.discrete_steps
    if seconds is not None:
        steps = affordable(model, train, valid, steps, seconds, budget.clock)
    minimize(
        model.parameters(), objective, phase="discrete", steps=steps,
        schedule=WarmupCosine(warm_up=0.0), clip=math.inf, callbacks=[on_time, best], **defaults.DISCRETE,
    )  # fmt: skip
    model.load_state_dict(best.weights)
    return best.nll


def affordable(
    model: DiscreteModel,
    train: DiscreteRows,
    valid: DiscreteRows,
    most: int,
    seconds: float,
    clock: Clock,
) -> int:
    """Number of training steps, with their validations, that the time allows; two steps are timed."""
    rows = torch.arange(defaults.DISCRETE_BATCH, device=train.weights.device) % len(train.weights)
    times = [clock()]
    for _ in range(2):
        loss = -model.log_prob(train.states[rows], train.extra[rows], train.given[rows]).mean()
        torch.autograd.grad(loss, list(model.parameters()))
        times.append(clock())
    held_out_nll(model, valid)
    validations = defaults.DISCRETE_VALIDATIONS * (clock() - times[-1])
    left = seconds - (clock() - times[0]) - validations
    return max(1, min(most, int(left / (times[2] - times[1]))))


class BestWeights:
    """A callback that keeps the weights with the best held-out likelihood, and stops training when
    validations no longer improve."""

    def __init__(self, model: DiscreteModel, valid: DiscreteRows) -> None:
        self.model, self.valid = model, valid
        self.nll, self.weights, self.stale = held_out_nll(model, valid), snapshot(model), 0

    def __call__(self, run: Any) -> None:
        """Validate, if a validation is due."""
        every = max(1, run.steps // defaults.DISCRETE_VALIDATIONS)
        if run.step % every and run.step < run.steps and not run.stopping:
            return
        nll = held_out_nll(self.model, self.valid)
        if nll < self.nll:
            self.nll, self.weights, self.stale = nll, snapshot(self.model), 0
            return
        self.stale += 1
        if self.stale >= defaults.DISCRETE_PATIENCE:
            run.stop()


@torch.no_grad()
def held_out_nll(model: DiscreteModel, valid: DiscreteRows) -> float:
    """NLL of a subsample of the rows, in nats per row."""
    places = evenly_spaced(valid.weights, defaults.DISCRETE_VALID_ROWS)
    parts = (valid.states, valid.extra, valid.given, valid.weights)
    states, extra, given, weights = (part[places] for part in parts)
    return weighted_nll(model.log_prob(states, extra, given), weights)[0]
