"""Fitting a flow to a known density by the reverse Kullback-Leibler divergence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cnf.flows import CNF
from cnf.inputs import as_seed
from cnf.ode import Solver
from cnf.training import Callback, History, TrainingError, minimize
from cnf.training.callbacks import renamed_callbacks
from cnf.training.modes import with_gradients
from cnf.training.solver_control import StepController

LogDensity = Callable[[Tensor], Tensor]
KL_CONTROL_EVERY = 10  # training steps
KL_PILOTS = 128  # draws that the solver is judged on
FIRST_TEMPERATURE = 0.1  # β at the start of a tempered part


class Sampler(Protocol):
    """A density whose draws and their scores are differentiable: a `CNF` or a `PlanarFlow`."""

    def sample_and_log_prob(
        self, shape: Sequence[int] = (), *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws (*shape, dim) and their log-densities (*shape,)."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """The parameters to fit."""


@with_gradients
def fit_reverse_kl(
    flow: Sampler,
    log_density: LogDensity,
    *,
    steps: int,
    batch: int = 256,
    learning_rate: float = 1e-2,
    anneal: float = 0.0,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    **renamed: Any,
) -> History:
    """Minimize KL(q ‖ p) = E_q[log q(x) − log p̃(x)] + log Z with Adam on new draws x ~ q.

    The first part of the training can be tempered: its target is β log p̃ with β rising from 0.1
    to 1, which helps q to find all modes.

    A flow that draws with a coarse solve can learn to make solver errors that look like a good
    fit. A CNF is therefore trained on randomly perturbed nodes, and on more nodes than its grid
    has if halving the steps shows an error. Confirm the result with a finer solve:
    `flow.calibrate(draws)`, then `importance_sample`.

    Args:
        flow: fitted in place.
        log_density: log p̃ (*batch,) of x (*batch, dim), in nats, up to a constant; differentiable.
        steps: number of training steps.
        batch: number of draws per training step.
        learning_rate: peak learning rate; after a warm-up it decreases to zero along a cosine.
        anneal: share of the training steps that is tempered, in [0, 1).
        seed: of the draws.
        callbacks: called after every training step.

    Returns:
        The records; their objective is the mean of log q − log p̃, which is KL(q ‖ p) − log Z.

    Raises:
        ValueError: for a budget that is not positive, or a share outside [0, 1).
        TrainingError: if the objective or its gradient is not finite, or a solve fails.
    """
    callbacks = renamed_callbacks("fit_reverse_kl", renamed, callbacks)
    if min(steps, batch) < 1 or not 0 <= anneal < 1:
        raise ValueError(
            f"expected steps, batch >= 1, anneal in [0, 1); got {steps}, {batch}, {anneal}"
        )
    generator = torch.Generator(next(iter(flow.parameters())).device).manual_seed(as_seed(seed))
    draw = _draws(flow, log_density, batch, generator)

    def objective(step: int) -> tuple[Tensor, Tensor]:
        done = step / steps
        tempered = FIRST_TEMPERATURE + (1 - FIRST_TEMPERATURE) * done / (anneal or 1.0)
        beta = 1.0 if done > anneal else tempered
        x, log_q = draw(step, done)
        log_p = log_density(x)
        return (log_q - beta * log_p).mean(), (log_q - log_p).mean()

    return minimize(
        flow.parameters(), objective, phase="reverse KL",
        steps=steps, learning_rate=learning_rate, callbacks=callbacks,
    )  # fmt: skip


def _draws(
    flow: Sampler, log_density: LogDensity, batch: int, generator: torch.Generator
) -> Callable[[int, float], tuple[Tensor, Tensor]]:
    """Draws (batch, dim) and their log-densities, as a function of the training step and its share
    of all: of a flow on given steps through nodes that move, under a `StepController`."""
    given = getattr(flow, "solver", None)
    if not isinstance(flow, CNF) or given is None or given.refined() is given:
        return lambda step, done: flow.sample_and_log_prob((batch,), generator=generator)

    def log_weights(solver: Solver) -> Tensor:
        """log q − log p̃ of draws from the same base points (KL_PILOTS,)."""
        same = torch.Generator(flow.device).manual_seed(0)
        x, log_q = flow.bind(solver=solver, generator=same).sample_and_log_prob((KL_PILOTS,))
        return log_q - log_density(x)

    control = StepController(
        log_weights,
        lambda steps: given.with_steps(max(steps, given.steps)),
        dim=flow.dim, grid=given, generator=generator,
    )  # fmt: skip

    def draw(step: int, done: float) -> tuple[Tensor, Tensor]:
        if step % KL_CONTROL_EVERY == 0 and not control.update(done):
            raise TrainingError(
                f"reverse KL: the solve failed at training step {step}; lower the learning rate"
            )
        bound = flow.bind(solver=control.training_grid(), generator=generator)
        return bound.sample_and_log_prob((batch,))

    return draw
