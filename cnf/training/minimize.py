"""Gradient descent on an objective of one's own: what everything but `fit` is trained by."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from cnf.training.errors import TrainingError
from cnf.training.history import History, Record

RECORDS = 100
CLIP = 5.0  # largest norm of a gradient


def minimize(
    parameters: Iterable[nn.Parameter],
    objective: Callable[[int], tuple[Tensor, Tensor]],
    *,
    phase: str,
    steps: int,
    learning_rate: float,
    warm_up: float = 0.05,
    callback: Callable[[int], None] | None = None,
) -> History:
    """Make an objective small by Adam: a linear warm-up, then a cosine to zero; gradients are
    clipped.

    Args:
        parameters: changed in place.
        objective: called with the number of the update, from 1; gives what is differentiated, and
            what is recorded, each ().
        phase: what the records and errors call it.
        steps: number of updates.
        learning_rate: its peak.
        warm_up: share of the updates, above 0.
        callback: told the number of updates after each of them.

    Returns:
        Up to 100 records, each with the mean objective since the last.

    Raises:
        ValueError: for fewer than one step.
        TrainingError: if the objective or its gradient is not finite; the parameters are as
            before.

    Example:
        >>> x = nn.Parameter(torch.tensor(3.0))
        >>> history = minimize([x], lambda step: ((x - 1) ** 2,) * 2, phase="x", steps=300, learning_rate=0.1)
        >>> round(x.item(), 2)
        1.0
    """
    if steps < 1:
        raise ValueError(f"steps: expected at least one update; got {steps}")
    parameters = list(parameters)
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    history, values, start = History(), [], time.perf_counter()
    for step in range(1, steps + 1):
        done = step / steps
        rate = learning_rate * min(1.0, done / warm_up) * 0.5 * (1 + math.cos(math.pi * done))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss, value = objective(step)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, CLIP)
        if not (norm.isfinite() and value.isfinite()):
            raise TrainingError(
                f"{phase}: the objective or its gradient was not finite at update {step}; lower the learning"
                " rate, and look for values that are far out of scale"
            )
        optimizer.step()
        values.append(value.item())
        if step * RECORDS // steps > (step - 1) * RECORDS // steps:
            mean = sum(values) / len(values)
            history.records.append(Record(phase, step, time.perf_counter() - start, mean, rate))
            values = []
        if callback is not None:
            callback(step)
    return history
