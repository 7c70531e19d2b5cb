"""Known velocities at some rows, as an additional term of an objective."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from cnf.fields import VelocityField
from cnf.fields.through_time import ThroughTime
from cnf.flows import CNF
from cnf.training.objectives import Loss, Objective, Task
from cnf.training.snapshots import SnapshotMatching, chained_places


@dataclass
class GuidedMatching(SnapshotMatching):
    """`SnapshotMatching` of rows with known velocities. Splines have these slopes, and rows are paired by
    extrapolated positions: those of a snapshot half of the interval ahead, and those of the next one
    half of it back.

    Attributes:
        velocities: velocities of the rows of each snapshot (rows, dim), in model coordinates, NaN if
            unknown.
    """

    velocities: tuple[Tensor, ...] = ()

    def chain(self, rows: list[Tensor], generator: torch.Generator) -> Tensor:
        """Chains of rows in model coordinates, with their velocities as additional columns."""
        times, moves = self.path.times, [u.nan_to_num(0.0) for u in self.velocities]
        spans = [(after - before) / 2 for before, after in pairwise(times)]
        ahead = [x + span * u for x, span, u in zip(rows, (*spans, 0.0), moves)]
        behind = [x - span * u for x, span, u in zip(rows, (0.0, *spans), moves)]
        places = chained_places(ahead, behind, self.chains, self.block, generator)
        both = [torch.cat([x, u.to(x)], 1) for x, u in zip(rows, self.velocities)]
        return torch.stack([x[there] for x, there in zip(both, places)])

    def along(self, points: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The positions of chains at t, and their velocity (times, rows, dim)."""
        x, velocities = points.chunk(2, -1)
        return self.path.through(x, velocities, t[..., None])


@dataclass
class KnownVelocities(Objective):
    """L + w E |v(t, x) − u|² over rows x with known velocities u at times t.

    The trained field is the one inside a `ThroughTime`.

    Attributes:
        objective: objective L.
        times: times of the rows, in [0, 1] (rows,).
        x: rows, in the units of the data (rows, dim).
        velocities: velocities u, in model coordinates (rows, dim).
        weight: weight w.
        nats: penalty in the selection of weights, for a mean squared difference of one.
    """

    objective: Objective
    times: Tensor
    x: Tensor
    velocities: Tensor
    weight: float
    nats: float

    def __post_init__(self) -> None:
        self.name = self.objective.name

    def start(self, task: Task) -> None:
        """Begin a phase."""
        assert isinstance(task.flow.field, ThroughTime)
        self.task, self.field = task, task.flow.field.field
        self.objective = copy.copy(self.objective)
        self.objective.start(task)
        self.y = task.flow.to_model_coordinates(self.x)[0]

    def loss(self, step: int, progress: float) -> Loss:
        """The loss L of a batch, with the term for a new draw of rows with known velocities.

        Raises:
            SolverError: as for L.
        """
        found, task = self.objective.loss(step, progress), self.task
        places = torch.randint(
            len(self.y), (task.batch,), generator=task.generator, device=self.y.device
        )
        (places,) = task.own(places)
        misfit = self._misfit(self.field, places)
        return Loss(found.value + self.weight * misfit, found.reported)

    def _misfit(self, field: VelocityField, places: Tensor | slice) -> Tensor:
        """The mean squared difference from the known velocities of some rows."""
        v = field(self.times[places].to(self.y), self.y[places])
        return (v - self.velocities[places].to(v)).square().sum(-1).mean()

    def diverged(self, window: Sequence[float], baseline: float) -> bool:
        """As L says."""
        return self.objective.diverged(window, baseline)

    def selection_penalty(self, flow: CNF) -> float:
        """The penalty of L, and nats for the difference from the known velocities."""
        assert isinstance(flow.field, ThroughTime)
        with torch.no_grad():
            misfit = self._misfit(flow.field.field, slice(None)).item()
        return (self.objective.selection_penalty(flow) or 0.0) + self.nats * misfit

    def state_dict(self) -> dict[str, Any]:
        """That of L."""
        return self.objective.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a state."""
        self.objective.load_state_dict(state)
