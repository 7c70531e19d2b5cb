"""Fitting a flow to a density by drawing from the flow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from cnf.flows import CNF
from cnf.ode import Grid
from cnf.training import History, minimize

LogDensity = Callable[[Tensor], Tensor]
CONTROL_EVERY = 10  # updates
PILOTS = 128  # draws that the solver is judged on
# Training is honest while a grid and one of half the steps agree within this, in nats a draw.
HONEST_WITHIN = 0.02
MOST_STEPS = 32


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
    callback: Callable[[int], None] | None = None,
) -> History:
    """Make KL(q ‖ p) = E_q[log q(x) − log p̃(x)] + log Z small, by Adam on fresh draws x ~ q.

    The first part of the training may be tempered: it follows β log p̃ with β rising from 0.1 to
    1, which keeps q from settling on one mode before it has seen the others.

    A flow that draws by a coarse solve can seem to fit better than any density does: it learns to
    make errors that look like fit. So a CNF is trained on nodes that move at random, and on more
    of them than its grid has where halving the steps shows an error. What it has learned is
    confirmed by a finer solve: `flow.calibrate(draws)`, then `importance_sample`.

    Args:
        flow: fitted in place.
        log_density: log p̃ (*batch,) of x (*batch, dim), in nats, up to a constant;
            differentiable.
        steps: number of updates.
        batch: draws of an update.
        learning_rate: its peak; after a warm-up it falls to zero along a cosine.
        anneal: share of the updates that is tempered, in [0, 1).
        seed: of the draws.
        callback: told the number of updates after each of them.

    Returns:
        The records; their objective is the mean of log q − log p̃, which is KL(q ‖ p) − log Z.

    Raises:
        ValueError: for a budget that is not positive, or a share outside [0, 1).
        TrainingError: if the objective or its gradient is not finite.
    """
    if min(steps, batch) < 1 or not 0 <= anneal < 1:
        raise ValueError(
            f"expected steps, batch >= 1, anneal in [0, 1); got {steps}, {batch}, {anneal}"
        )
    generator = torch.Generator(next(iter(flow.parameters())).device).manual_seed(seed)
    with _honest_nodes(flow, log_density, generator) as move_nodes:

        def objective(step: int) -> tuple[Tensor, Tensor]:
            move_nodes(step)
            done = step / steps
            beta = 1.0 if done > anneal else 0.1 + 0.9 * done / anneal
            x, log_q = flow.sample_and_log_prob((batch,), generator=generator)
            log_p = log_density(x)
            return (log_q - beta * log_p).mean(), (log_q - log_p).mean()

        return minimize(
            flow.parameters(),
            objective,
            phase="reverse KL",
            steps=steps,
            learning_rate=learning_rate,
            callback=callback,
        )


@contextmanager
def _honest_nodes(
    flow: Sampler, log_density: LogDensity, generator: torch.Generator
) -> Iterator[Callable[[int], None]]:
    """What to call before every update; the grid of the flow is as it was when the block ends."""
    if not (isinstance(flow, CNF) and isinstance(flow.solver, Grid)):
        yield lambda step: None
        return
    given = grid = flow.solver

    def move_nodes(step: int) -> None:
        nonlocal grid
        if step % CONTROL_EVERY == 0:
            error = _solver_error(flow, log_density, grid)
            if error > HONEST_WITHIN:
                grid = given.with_steps(min(grid.steps + 1, max(MOST_STEPS, given.steps)))
            elif error < HONEST_WITHIN / 4 and grid.steps > given.steps:
                grid = given.with_steps(grid.steps - 1)
        flow.solver = grid.jittered(generator)

    try:
        yield move_nodes
    finally:
        flow.solver = given


@torch.no_grad()
def _solver_error(flow: CNF, log_density: LogDensity, grid: Grid) -> float:
    """Mean change of log q − log p̃, in nats, when every step is halved, from the same base
    points."""
    found = []
    for flow.solver in (grid, grid.refined()):
        same = torch.Generator(flow.device).manual_seed(0)
        x, log_q = flow.sample_and_log_prob((PILOTS,), generator=same)
        found.append(log_q - log_density(x))
    return (found[0] - found[1]).abs().mean().item()
