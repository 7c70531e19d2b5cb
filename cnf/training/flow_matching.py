"""Flow matching: regression of the velocity, without an ODE solve."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.training.batches import Batches
from cnf.training.couplings import Coupling, IndependentCoupling
from cnf.training.objectives import Loss, Objective, Task
from cnf.training.paths import LinearPath, Path, shortest_path

Pairs = tuple[Tensor, Tensor, Tensor | None]  # source points, rows and their context


@dataclass
class FlowMatching(Objective):
    """The flow-matching objective, E |v(t, x_t) − u_t|² (Lipman et al. 2023).

    Its minimizer transports the source distribution to the data.

    Attributes:
        path: the conditional path, (z, y, t) → (x_t, u_t); None is the shortest path in the space
            of the flow.
        coupling: the coupling of source points with rows.
        times: number of distinct times in a batch, stratified; the gates of a field are computed
            once for all rows of a time. The batch is a multiple of it.
        source: source rows (rows, dim) in the units of the data, None draws from the base of the
            flow.
        pairs: number of pairs made at the start of a phase, from which batches are drawn, because
            the coupling of large blocks costs more than a training step. None makes new pairs for
            every batch.
        name: name of the phase in the history and in progress displays.
    """

    path: Path | None = None
    coupling: Coupling = field(default_factory=IndependentCoupling)
    times: int = 64
    source: Tensor | None = None
    pairs: int | None = None
    name: str = field(default="flow matching", compare=False)

    def start(self, task: Task) -> None:
        """Begin a phase."""
        self.task, count = task, task.processes.count
        if count > 1 and task.batch % (self.times * count):
            raise ValueError(
                f"batch: expected a multiple of {self.times} times and {count} processes,"
                f" {self.times * count}; got {task.batch} rows"
            )
        self.start_points: Batches | None = None
        if self.source is not None:
            rows = self.source.to(task.flow.device)
            self.start_points = Batches(task.flow.to_model_coordinates(rows)[0], None, None)
        self.pool: Batches | None = None
        if self.pairs is not None:
            generator = torch.Generator(task.flow.device).manual_seed(
                task.generator.initial_seed()
            )
            self.pool = self._pool(self.pairs, generator)

    def loss(self, step: int, progress: float) -> Loss:
        """The loss of new pairs."""
        task = self.task
        z, y, context = task.own(*self._draw())
        path = self.path or shortest_path(task.flow.geometry)
        value = flow_matching_loss(
            task.flow, z, y, context, task.generator, path=path, times=self.times
        )
        return Loss(value, value.item())

    def _pool(self, count: int, generator: torch.Generator) -> Batches:
        """At least `count` pairs, in batches that are each spread evenly over both ends."""
        batch = self.task.batch
        starts, rows, contexts = zip(
            *(self._paired(batch, generator) for _ in range(-(-count // batch)))
        )
        context = None if contexts[0] is None else torch.cat(contexts)
        return Batches(torch.cat(rows), context, None, torch.cat(starts))

    def _draw(self) -> Pairs:
        """A batch of pairs."""
        task, pool = self.task, self.pool
        if pool is None:
            return self._paired(task.batch, task.generator)
        y, context, z = pool.draw(task.batch, task.generator)
        return z, y, context

    def _paired(self, count: int, generator: torch.Generator) -> Pairs:
        """So many fresh pairs."""
        y, context = self.task.batches.draw(count, generator)
        return *self.coupling(self._draw_source(y, generator), y, context), context

    def _draw_source(self, y: Tensor, generator: torch.Generator) -> Tensor:
        if self.start_points is None:
            flow = self.task.flow
            return flow.base.sample((len(y),), generator, dtype=flow.dtype, device=flow.device)
        return self.start_points.draw(len(y), generator)[0]


def flow_matching_loss(
    flow: CNF,
    z: Tensor,
    y: Tensor,
    context: Tensor | None,
    generator: torch.Generator,
    *,
    path: Path = LinearPath(),  # noqa: B008 - a frozen value
    times: int = 64,
) -> Tensor:
    """Mean of |v(t, x_t) − u_t|² over pairs at stratified times.

    Args:
        flow: the flow whose field is trained.
        z: source points (rows, dim), rows a multiple of `times`.
        y: the rows paired with them, in model coordinates (rows, dim).
        context: context of the rows, in model coordinates (rows, context_dim).
        generator: generator of the times.
        path: (z, y, t) → (x_t, u_t).
        times: number of distinct times.
    """
    t = stratified_times(times, y, generator)
    z, y = z.reshape(times, -1, flow.base.dim), y.reshape(times, -1, flow.base.dim)
    context = None if context is None else context.reshape(times, -1, flow.context_dim)
    x, velocity = path(z, y, t[..., None])
    return (flow.field(t, x, context) - velocity).square().sum(-1).mean()


def stratified_times(times: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Times (times, 1) in [0, 1], one at random in each of `times` equal intervals."""
    u = torch.rand(times, generator=generator, device=like.device, dtype=like.dtype)
    return ((torch.arange(times, device=like.device) + u) / times)[:, None]
