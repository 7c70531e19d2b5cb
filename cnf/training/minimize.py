"""Gradient descent on a custom objective, without validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor, nn

from cnf.training.callbacks import Callback, as_callbacks
from cnf.training.config import Clock
from cnf.training.errors import TrainingError
from cnf.training.history import History, Record
from cnf.training.modes import with_gradients
from cnf.training.optimizers import Adam
from cnf.training.processes import shared_seconds
from cnf.training.schedules import Schedule, WarmupCosine

MOST_RECORDS = 100  # per run or phase
GRADIENT_CLIP = 5.0  # largest norm of a gradient


class Minimization:
    """A run of `minimize`, as passed to its callbacks.

    Attributes:
        step: training steps so far.
        steps: number of training steps of the run.
        history: the history so far.
    """

    def __init__(self, steps: int) -> None:
        self.step, self.steps = 0, steps
        self.history = History()
        self.stopping = False

    def stop(self) -> None:
        """End the run after this training step."""
        self.stopping = True


@with_gradients
def minimize(
    parameters: Iterable[nn.Parameter],
    objective: Callable[[int], tuple[Tensor, Tensor]],
    *,
    phase: str,
    steps: int,
    learning_rate: float,
    schedule: Schedule = WarmupCosine(),  # noqa: B008 - a frozen value
    weight_decay: float = 0.0,
    clip: float = GRADIENT_CLIP,
    callbacks: Sequence[Callback] = (),
    clock: Clock = shared_seconds,
) -> History:
    """Minimize an objective by AdamW with clipped gradients.

    Args:
        parameters: parameters, changed in place.
        objective: called with the number of the training step, from 1; returns two scalars, the
            loss and the recorded value.
        phase: name of the objective in records and errors.
        steps: number of training steps.
        learning_rate: the peak learning rate.
        schedule: the learning rate as a function of its peak and the fraction of the steps.
        weight_decay: decoupled weight decay.
        clip: largest norm of a gradient.
        callbacks: called after every training step with the `Minimization`.
        clock: function that returns the time of records in seconds.

    Returns:
        Up to 100 records, each with the mean objective since the last.

    Raises:
        ValueError: for fewer than one step.
        TrainingError: if the objective or its gradient is not finite; the parameters are those
            before that step.

    Example:
        >>> import torch
        >>> x = nn.Parameter(torch.tensor(3.0))
        >>> history = minimize(
        ...     [x], lambda step: ((x - 1) ** 2,) * 2, phase="x", steps=300, learning_rate=0.1
        ... )
        >>> round(x.item(), 2)
        1.0
    """
    if steps < 1:
        raise ValueError(f"steps: expected at least one training step; got {steps}")
    parameters, callbacks = list(parameters), as_callbacks(callbacks)
    optimizer = Adam(parameters, lr=learning_rate, weight_decay=weight_decay)
    run, values, start = Minimization(steps), [], clock()
    while run.step < steps and not run.stopping:
        run.step += 1
        rate = schedule(learning_rate, run.step / steps)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss, value = objective(run.step)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, clip)
        if not (norm.isfinite() and value.isfinite()):
            raise TrainingError(
                f"{phase}: the objective or its gradient was not finite at update {run.step}; lower the"
                " learning rate, and look for extreme values"
            )
        optimizer.step()
        values.append(value.item())
        if run.step * MOST_RECORDS // steps > (run.step - 1) * MOST_RECORDS // steps:
            mean = sum(values) / len(values)
            run.history.records.append(Record(phase, run.step, clock() - start, mean, rate))
            values = []
        for callback in callbacks:
            callback(run)
    return run.history
