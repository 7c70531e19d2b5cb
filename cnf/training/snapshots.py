"""Flow matching through snapshots: unpaired rows at several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cnf.fields.through_time import ThroughTime
from cnf.training.couplings import assignment
from cnf.training.flow_matching import stratified_times
from cnf.training.objectives import Loss, Objective, Task
from cnf.training.paths import SplinePath


@dataclass
class SnapshotMatching(Objective):
    """E |v(t, x_t) − u_t|² along splines through chains of rows, one row of each snapshot.

    Each chain pairs rows of neighboring snapshots by optimal transport within blocks (Tong et al.
    2020; Rohbeck et al. 2025). The trained field is the one inside a `ThroughTime`.

    Attributes:
        snapshots: rows of each time (rows, dim), in the units of the data.
        path: path through the points of a chain, with the times of the snapshots.
        chains: number of chains made at the start, from which batches are drawn.
        block: number of rows of a snapshot that are paired together.
        times: number of distinct times in a batch, stratified. The batch is a multiple of it.
    """

    snapshots: tuple[Tensor, ...]
    path: SplinePath
    chains: int
    block: int
    times: int = 64

    name = "flow matching"

    def start(self, task: Task) -> None:
        """Begin a phase; the chains depend only on the seed."""
        assert isinstance(task.flow.field, ThroughTime)
        self.task, self.field = task, task.flow.field.field
        rows = [task.flow.to_model_coordinates(rows)[0] for rows in self._on(task.flow.device)]
        generator = torch.Generator(task.flow.device).manual_seed(task.generator.initial_seed())
        self.points = self.chain(rows, generator)

    def chain(self, rows: list[Tensor], generator: torch.Generator) -> Tensor:
        """Chains (snapshots, chains, columns) of rows in model coordinates."""
        return chained(rows, self.chains, self.block, generator)

    def along(self, points: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The positions of chains at t, and the velocity of each column (times, rows, columns)."""
        return self.path(points, t[..., None])

    def _on(self, device: torch.device) -> list[Tensor]:
        return [rows.to(device) for rows in self.snapshots]

    def loss(self, step: int, progress: float) -> Loss:
        """The loss of a new batch of chains."""
        task = self.task
        places = torch.randint(
            self.points.shape[1],
            (task.batch,),
            generator=task.generator,
            device=self.points.device,
        )
        (places,) = task.own(places)
        points = self.points[:, places].unflatten(1, (self.times, -1))
        t = stratified_times(self.times, points, task.generator)
        x, velocity = self.along(points, t)
        value = self.misfit(t, x, velocity).mean()
        return Loss(value, value.item())

    def misfit(self, t: Tensor, x: Tensor, velocity: Tensor) -> Tensor:
        """The squared distance (times, rows) from the velocity of the chains."""
        return (self.field(t, x) - velocity).square().sum(-1)


def chained(
    snapshots: Sequence[Tensor], count: int, block: int, generator: torch.Generator
) -> Tensor:
    """At least `count` chains of rows (snapshots, chains, dim), with rows of neighboring snapshots
    paired by optimal transport within blocks.

    Args:
        snapshots: rows of each time, in model coordinates (rows, dim).
        count: number of chains.
        block: number of rows that are paired together; fewer if a snapshot has fewer.
        generator: draws the rows of a block.

    Example:
        >>> near = [torch.tensor([[0.0], [9.0]]), torch.tensor([[8.0], [1.0]])]
        >>> chained(near, 2, 2, torch.Generator().manual_seed(0))[..., 0].sort(1).values
        tensor([[0., 9.],
                [1., 8.]])
    """
    places = chained_places(snapshots, snapshots, count, block, generator)
    return torch.stack([x[there] for x, there in zip(snapshots, places)])


def chained_places(
    ahead: Sequence[Tensor],
    behind: Sequence[Tensor],
    count: int,
    block: int,
    generator: torch.Generator,
) -> list[Tensor]:
    """The indices of the rows of `chained`, (chains,) for each snapshot. A row has one position for the
    comparison with the next snapshot and another one for the comparison with the previous snapshot.

    Args:
        ahead: positions for the comparison with the next snapshot (rows, dim).
        behind: positions for the comparison with the previous snapshot.
        count: see `chained`.
        block: see `chained`.
        generator: see `chained`.
    """
    block = min(block, *(len(rows) for rows in behind))
    blocks = [_block(ahead, behind, block, generator) for _ in range(-(-count // block))]
    return [torch.cat(parts) for parts in zip(*blocks)]


def _block(
    ahead: Sequence[Tensor], behind: Sequence[Tensor], block: int, generator: torch.Generator
) -> list[Tensor]:
    places: list[Tensor] = []
    for k, x in enumerate(behind):
        drawn = torch.randperm(len(x), generator=generator, device=x.device)[:block]
        if places:
            before = ahead[k - 1][places[-1]]
            drawn = drawn[assignment(before[None], x[drawn][None])[0]]
        places.append(drawn)
    return places
