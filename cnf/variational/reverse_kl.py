"""Fitting a flow to a density by drawing from the flow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cnf.flows import CNF
from cnf.ode import Grid
from cnf.training import Callback, History, TrainingError, minimize
from cnf.training.callbacks import renamed_callbacks
from cnf.training.solver_control import StepController

LogDensity = Callable[[Tensor], Tensor]
KL_CONTROL_EVERY = 10  # training steps
KL_PILOTS = 128  # draws that the solver is judged on
FIRST_TEMPERATURE = 0.1  # β at the start of a tempered part


class Sampler(Protocol):
    """A density that draws and scores what it draws, differentiably: a `CNF`, a `PlanarFlow`."""

    def sample_and_log_prob(
        self, shape: Sequence[int] = (), *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws (*shape, dim) and their log-densities (*shape,)."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """What is fitted."""


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
    """Minimize KL(q ‖ p) = E_q[log q(x) − log p̃(x)] + log Z by Adam on fresh draws x ~ q.

    The first part of the training may be tempered: it follows β log p̃ with β rising from 0.1 to 1,
    which keeps q from settling on one mode before it has seen the others.

    A flow that draws by a coarse solve can seem to fit better than any density does: it learns to
    make errors that look like a good fit. So a CNF is trained on nodes that move at random, and on
    more of them than its grid has where halving the steps shows an error. Confirm what it has
    learned by a finer solve: `flow.calibrate(draws)`, then `importance_sample`.

    Args:
        flow: fitted in place.
        log_density: log p̃ (*batch,) of x (*batch, dim), in nats, up to a constant; differentiable.
        steps: number of training steps.
        batch: draws of a training step.
        learning_rate: its peak; after a warm-up it falls to zero along a cosine.
        anneal: share of the training steps that is tempered, in [0, 1).
        seed: of the draws.
        callbacks: called after every training step.

    Returns:
        The records; their objective is the mean of log q − log p̃, which is KL(q ‖ p) − log Z.

    Raises:
        ValueError: for a budget that is not positive, or a share outside [0, 1).
        TrainingError: if the objective or its gradient is not finite, or no solver follows the
            flow.
    """
    callbacks = renamed_callbacks("fit_reverse_kl", renamed, callbacks)
    if min(steps, batch) < 1 or not 0 <= anneal < 1:
        raise ValueError(
            f"expected steps, batch >= 1, anneal in [0, 1); got {steps}, {batch}, {anneal}"
        )
    generator = torch.Generator(next(iter(flow.parameters())).device).manual_seed(seed)
    moving = MovingNodes.of(flow, log_density, generator)

    def objective(step: int) -> tuple[Tensor, Tensor]:
        done = step / steps
        moving.move(step, done)
        tempered = FIRST_TEMPERATURE + (1 - FIRST_TEMPERATURE) * done / (anneal or 1.0)
        beta = 1.0 if done > anneal else tempered
        x, log_q = flow.sample_and_log_prob((batch,), generator=generator)
        log_p = log_density(x)
        return (log_q - beta * log_p).mean(), (log_q - log_p).mean()

    try:
        return minimize(
            flow.parameters(), objective, phase="reverse KL",
            steps=steps, learning_rate=learning_rate, callbacks=callbacks,
        )  # fmt: skip
    finally:
        moving.restore()


class MovingNodes:
    """The solver of a flow that is trained by its draws; a density without a grid is left alone."""

    @classmethod
    def of(cls, flow: Sampler, log_density: LogDensity, generator: torch.Generator) -> MovingNodes:
        """Those of a flow."""
        if isinstance(flow, CNF) and isinstance(flow.solver, Grid):
            return MovingGrid(flow, flow.solver, log_density, generator)
        return cls()

    def move(self, step: int, done: float) -> None:
        """Called before every training step, at a share of all."""

    def restore(self) -> None:
        """Give the flow back the solver that it had."""


class MovingGrid(MovingNodes):
    """A grid of at least as many steps as the flow's own, under a `StepController`."""

    def __init__(
        self, flow: CNF, grid: Grid, log_density: LogDensity, generator: torch.Generator
    ) -> None:
        self.flow, self.given, self.log_density = flow, grid, log_density
        self.control = StepController(
            self._log_weights,
            lambda steps: grid.with_steps(max(steps, grid.steps)),
            dim=flow.dim, grid=grid, generator=generator,
        )  # fmt: skip

    def move(self, step: int, done: float) -> None:
        """Move the nodes, and now and then set their number."""
        if step % KL_CONTROL_EVERY == 0 and not self.control.update(done):
            raise TrainingError(
                f"reverse KL: no solver follows the flow at update {step}; lower the learning rate"
            )
        self.flow.solver = self.control.training_grid()

    def restore(self) -> None:
        """Give the flow back its grid."""
        self.flow.solver = self.given

    def _log_weights(self, grid: Grid) -> Tensor:
        """log q − log p̃ of draws from the same base points (KL_PILOTS,)."""
        self.flow.solver = grid
        same = torch.Generator(self.flow.device).manual_seed(0)
        x, log_q = self.flow.sample_and_log_prob((KL_PILOTS,), generator=same)
        return log_q - self.log_density(x)
