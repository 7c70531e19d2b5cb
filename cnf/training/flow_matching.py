"""Flow matching: regression of the velocity, without a solve."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.training.couplings import Coupling, IndependentCoupling
from cnf.training.objectives import Loss, Objective, Task
from cnf.training.paths import LinearPath, Path, shortest_path


@dataclass
class FlowMatching(Objective):
    """The flow-matching objective, E |v(t, x_t) − u_t|² (Lipman et al. 2023).

    Its minimizer carries the source to the data.

    Attributes:
        path: the conditional path, (z, y, t) → (x_t, u_t); None goes the shortest way in the space
            of the flow.
        coupling: which source point is paired with which row.
        times: number of distinct times in a batch, stratified; the gates of a field are computed
            once for all rows of a time. The batch is a multiple of it.
        source: source rows (rows, dim) in the units of the data, drawn with replacement; None
            draws from the base of the flow.
    """

    path: Path | None = None
    coupling: Coupling = field(default_factory=IndependentCoupling)
    times: int = 64
    source: Tensor | None = None

    name = "flow matching"

    def start(self, task: Task) -> None:
        """Begin a phase."""
        self.task, count = task, task.processes.count
        if count > 1 and task.batch % (self.times * count):
            raise ValueError(
                f"batch: expected a multiple of {self.times} times and {count} processes,"
                f" {self.times * count}; got {task.batch} rows"
            )
        self.source_rows: Tensor | None = None
        if self.source is not None:
            rows = self.source.to(task.flow.device)
            self.source_rows = task.flow.to_model_coordinates(rows)[0]

    def loss(self, step: int, progress: float) -> Loss:
        """The loss of fresh pairs."""
        task = self.task
        y, context = task.batches.draw(task.batch, task.generator)
        pairs = self.coupling(self._draw_source(y), y, context)
        z, y, context = task.own(*pairs, context)
        path = self.path or shortest_path(task.flow.geometry)
        value = flow_matching_loss(
            task.flow, z, y, context, task.generator, path=path, times=self.times
        )
        return Loss(value, value.item())

    def _draw_source(self, y: Tensor) -> Tensor:
        generator, rows = self.task.generator, self.source_rows
        if rows is None:
            flow = self.task.flow
            return flow.base.sample((len(y),), generator, dtype=flow.dtype, device=flow.device)
        return rows[torch.randint(len(rows), (len(y),), generator=generator, device=y.device)]


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
        context: of the rows, in model coordinates (rows, context_dim).
        generator: the source of times.
        path: (z, y, t) → (x_t, u_t).
        times: number of distinct times.
    """
    t = stratified_times(times, y, generator)
    z, y = z.reshape(times, -1, flow.base.dim), y.reshape(times, -1, flow.base.dim)
    context = None if context is None else context.reshape(times, -1, flow.context_dim)
    x, velocity = path(z, y, t[..., None])
    return (flow.field(t, x, context) - velocity).square().sum(-1).mean()


def stratified_times(times: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Times (times, 1) in [0, 1], one at random in each of as many equal parts."""
    u = torch.rand(times, generator=generator, device=like.device, dtype=like.dtype)
    return ((torch.arange(times, device=like.device) + u) / times)[:, None]
