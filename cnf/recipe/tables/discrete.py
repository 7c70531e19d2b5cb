"""Fitting the distribution over states by maximum likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cnf.rows import evenly_spaced, weighted_nll
from cnf.tables.discrete import DiscreteModel
from cnf.training.stratified import StratifiedRows
from cnf.training.validation import snapshot

BATCH = 512
RATE = 3e-3
WEIGHT_DECAY = 1e-3
VALIDATIONS = 20
PATIENCE = 6
MOST_ROWS = 4096


@dataclass(frozen=True)
class DiscreteRows:
    """States (rows, columns), what is known beside them (rows, extra), which of them are given,
    weights."""

    states: Tensor
    extra: Tensor
    given: Tensor
    weights: Tensor


def fit_discrete(
    model: DiscreteModel, train: DiscreteRows, valid: DiscreteRows, *, steps: int, seed: int
) -> float:
    """Fit, keep the weights that held-out rows like best, and return their NLL in nats a row."""
    if not model.non_constant:
        return 0.0
    model.start_from(train.states.where(~train.given, -1), train.weights)
    strata = StratifiedRows(torch.cat([train.states, train.extra], 1), train.weights)
    generator = torch.Generator(train.states.device).manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    best, stale = (_held_out(model, valid), snapshot(model)), 0
    every = max(1, steps // VALIDATIONS)
    for step in range(1, steps + 1):
        _set_rate(optimizer, step / steps)
        chosen = strata.draw(BATCH, generator)
        loss = -model.log_prob(
            train.states[chosen], train.extra[chosen], train.given[chosen]
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % every and step < steps:
            continue
        nll = _held_out(model, valid)
        best, stale = ((nll, snapshot(model)), 0) if nll < best[0] else (best, stale + 1)
        if stale >= PATIENCE:
            break
    model.load_state_dict(best[1])
    return best[0]


def _set_rate(optimizer: torch.optim.Optimizer, done: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def _held_out(model: DiscreteModel, valid: DiscreteRows) -> float:
    places = evenly_spaced(valid.weights, MOST_ROWS)
    parts = (valid.states, valid.extra, valid.given, valid.weights)
    states, extra, given, weights = (part[places] for part in parts)
    return weighted_nll(model.log_prob(states, extra, given), weights)[0]
