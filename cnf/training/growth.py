"""Training of flows whose mass grows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from cnf.fields.growing import GrowingField
from cnf.fields.through_time import ThroughTime
from cnf.flows import CNF
from cnf.flows.growing_flow import carried, squared_slope
from cnf.ode import Grid, Solver
from cnf.training.couplings import unbalanced_odds
from cnf.training.maximum_likelihood import MaximumLikelihood
from cnf.training.objectives import Loss, Task
from cnf.training.snapshots import SnapshotMatching
from cnf.training.validation import VALIDATION_STEPS

# Size of the pool of base points from which a training step draws, and of its part for validation.
POOL, JUDGED = 8_192, 2_048
# Largest factor of growth or decay of a row's mass between two snapshots. Beyond it, a few rows at the
# edge of a plan would dominate.
MOST_GROWTH = 8.0


@dataclass(frozen=True)
class Totals:
    """Estimates of the total mass of a growing flow, Z = ∫ ρ(x, t) dx = E exp ∫ g dt over the base.

    Attributes:
        pool: draws from the base (draws, dim), in model coordinates.
        times: times of Z, in [0, 1].
        counts: number of rows at each of these times.
    """

    pool: Tensor
    times: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, task: Task, times: tuple[float, ...], counts: tuple[int, ...]) -> Totals:
        """Totals whose draws depend only on the seed."""
        flow, seed = task.flow, task.generator.initial_seed()
        generator = torch.Generator(flow.device).manual_seed(seed)
        pool = flow.base.sample((POOL,), generator, dtype=flow.dtype, device=flow.device)
        return cls(pool, times, counts)

    def integrals(
        self, flow: CNF, z: Tensor, solver: Solver, probe: Tensor | None = None
    ) -> Tensor:
        """The integrals in `carried`, from base points z (rows, dim) to each of the times."""
        assert isinstance(flow.field, ThroughTime) and isinstance(flow.field.field, GrowingField)
        return carried(flow.field.field, z, (0.0, *self.times), solver, probe)[1][1:]

    def mean(self, values: Tensor) -> Tensor:
        """The mean of values at the times (times,), weighted by their rows."""
        return (values * values.new_tensor(self.counts)).sum() / sum(self.counts)

    @torch.no_grad()
    def log_mean(self, flow: CNF, solver: Solver) -> float:
        """The mean of log Z over rows, in nats, which is zero for a normalized density."""
        growth = self.integrals(flow, self.pool[:JUDGED], solver)[..., 0]
        return self.mean(growth.logsumexp(1) - math.log(JUDGED)).item()


@dataclass
class GrowthMatching(SnapshotMatching):
    """E |v(t, x_t) − u_t|² + E (g(t, x_t) − dl_t/dt)² + w E |∇g|² along splines through chains of
    rows, one from each snapshot, and through the logarithm l of their mass.

    Rows are chained by unbalanced optimal transport: mass that increases in one place and
    decreases in another is modeled as growth, not as motion.

    Attributes:
        reach: see `unbalanced_odds`, in model coordinates.
        slope_weight: w.
    """

    reach: float = 1.0
    slope_weight: float = 0.0

    def start(self, task: Task) -> None:
        """Begin a phase."""
        super().start(task)
        counts = tuple(len(rows) for rows in self.snapshots[1:])
        self.totals = Totals.of(task, self.path.times[1:], counts)

    def chain(self, rows: list[Tensor], generator: torch.Generator) -> Tensor:
        """Chains of rows in model coordinates, with l as one more column."""
        return growing_chains(rows, self.chains, self.block, self.reach, generator)

    def misfit(self, t: Tensor, x: Tensor, velocity: Tensor) -> Tensor:
        """The squared distance (times, rows) from velocity and growth of the chains."""
        field, x, (u, rate) = self.field, x[..., :-1], (velocity[..., :-1], velocity[..., -1])
        assert isinstance(field, GrowingField)
        probe = torch.randn(x.shape, generator=self.task.generator, device=x.device).to(x)
        slope = self.slope_weight * squared_slope(field.growth, t, x, probe)
        return (field(t, x) - u).square().sum(-1) + (field.growth(t, x) - rate).square() + slope

    def selection_penalty(self, flow: CNF) -> float:
        """Nats by which the mass of ρ exceeds one."""
        return self.totals.log_mean(flow, Grid.uniform(VALIDATION_STEPS, "adams"))


def growing_chains(
    snapshots: Sequence[Tensor], count: int, block: int, reach: float, generator: torch.Generator
) -> Tensor:
    """At least `count` chains of rows (snapshots, chains, dim + 1), each from a row of the first
    snapshot, with the logarithm of the mass relative to the first row as the last column.

    Args:
        snapshots: rows of each time, in model coordinates (rows, dim).
        count: number of chains.
        block: rows of a snapshot that are paired together; fewer if a snapshot has fewer.
        reach: see `unbalanced_odds`.
        generator: draws rows and their successors.
    """
    block = min(block, *(len(rows) for rows in snapshots))
    blocks = [
        _growing_block(snapshots, block, reach, generator) for _ in range(-(-count // block))
    ]
    return torch.cat(blocks, 1)


def _growing_block(
    snapshots: Sequence[Tensor], block: int, reach: float, generator: torch.Generator
) -> Tensor:
    device = snapshots[0].device
    orders = [torch.randperm(len(x), generator=generator, device=device) for x in snapshots]
    drawn = [x[order[:block]] for x, order in zip(snapshots, orders)]
    places, log_mass = torch.arange(block, device=device), drawn[0].new_zeros(block)
    chain = [torch.cat([drawn[0], log_mass[:, None]], 1)]
    for before, after in pairwise(drawn):
        odds = unbalanced_odds(before, after, reach)
        places = torch.multinomial(odds[places], 1, generator=generator)[:, 0]
        # If a plan sends too much or too little mass to a row, it has to shrink or grow.
        grown = odds.sum(0).reciprocal().clamp(1 / MOST_GROWTH, MOST_GROWTH).to(log_mass)
        log_mass = log_mass + grown.log()[places]
        chain.append(torch.cat([after[places], log_mass[:, None]], 1))
    return torch.stack(chain)


@dataclass
class GrowingLikelihood(MaximumLikelihood):
    """Extended maximum likelihood: the negative log-likelihood of an intensity ρ, and its mass.

        −E log ρ(x, t) + Σₖ wₖ (Zₖ − 1),    Zₖ = ∫ ρ(x, tₖ) dx,

    for snapshots k with the fraction wₖ of the rows. Its minimum has Z = 1, since log Z ≤ Z − 1, and
    a few draws give unbiased estimates of Z and its gradient (Barlow 1990). A penalty on ∫ |∇g|²
    dt gives neighbors similar rates, so that growth does not replace motion.

    Attributes:
        times: times of the snapshots except the first, in [0, 1].
        counts: number of rows at each of these times.
        slope_weight: weight of ∫ |∇g|² dt.
    """

    times: tuple[float, ...] = (1.0,)
    counts: tuple[int, ...] = (1,)
    slope_weight: float = 0.0

    def start(self, task: Task) -> None:
        """Begin a phase."""
        super().start(task)
        self.totals = Totals.of(task, self.times, self.counts)

    def loss(self, step: int, progress: float) -> Loss:
        """The loss of new rows and base points.

        Raises:
            SolverError: if the largest grid cannot solve the field.
        """
        found, totals, task = super().loss(step, progress), self.totals, self.task
        draws, pool = task.generator, totals.pool
        places = torch.randint(POOL, (task.batch,), generator=draws, device=pool.device)
        probe = torch.randn(pool[places].shape, generator=draws, device=pool.device).to(pool)
        places, probe = task.own(places, probe)
        grid = self.control.training_grid()
        q = totals.integrals(task.flow, pool[places], grid, probe)
        excess = totals.mean(q[..., 0].exp().mean(1)) - 1
        value = found.value + excess + self.slope_weight * q[-1, :, 1].mean()
        return Loss(value, found.reported + excess.item())

    def selection_penalty(self, flow: CNF) -> float | None:
        """Nats by which the mass of ρ exceeds one."""
        penalty = super().selection_penalty(flow)
        if penalty is None:
            return None
        return penalty + self.totals.log_mean(flow, self.control.grid.refined())
