"""The protocol of objectives, which a training phase minimizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.rows import Rows
from cnf.training.batches import Sampler
from cnf.training.processes import Processes

# Training has diverged if the loss stays above its stable value by this factor.
LOSS_FACTOR = 10.0


class Loss(NamedTuple):
    """The loss of one training step.

    Attributes:
        value: a scalar, which is differentiated.
        reported: the objective as a number, for the history and for the check for divergence.
    """

    value: Tensor
    reported: float


# The loss of a training step whose rows could not be solved.
LOST = Loss(torch.tensor(torch.nan), torch.nan)


@dataclass(frozen=True)
class Task:
    """The inputs of an objective during a phase.

    Attributes:
        flow: the flow in training.
        batches: training rows in model coordinates.
        pilot: a few of the training rows, in the units of the data.
        batch: number of rows of a training step.
        generator: the source of all randomness.
        processes: the processes that divide each batch.
    """

    flow: CNF
    batches: Sampler
    pilot: Rows
    batch: int
    generator: torch.Generator
    processes: Processes = Processes()  # noqa: RUF009 - without state

    def own(self, *parts: Tensor | None) -> list[Any]:
        """The rows of this process in the parts of a batch, each (rows, …) or None."""
        return [None if part is None else self.processes.part(part) for part in parts]


class Objective(Protocol):
    """A training objective. `name`, `start` and `loss` are required; the rest has defaults.

    The attributes set by the constructor are the configuration; those set by `start` are the state
    of a phase. A trainer starts a copy, so that one objective can be used in several phases. Declare
    the configuration as a dataclass: a checkpoint compares its fields to find out whether it belongs to
    the fit.
    """

    name: str

    def start(self, task: Task) -> None:
        """Begin a phase."""

    def loss(self, step: int, progress: float) -> Loss:
        """The loss of training step `step` of the phase, from 1, at a fraction of its budget.

        Raises:
            SolverError: if no solver can solve the field; the trainer then rolls back.
        """
        raise NotImplementedError

    def diverged(self, window: Sequence[float], baseline: float) -> bool:
        """Whether all recently reported losses are far above the largest of a stable window."""
        return min(window) > LOSS_FACTOR * baseline

    def selection_penalty(self, flow: CNF) -> float | None:
        """Penalty in nats in the selection of the best weights; None if unknown."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """The state of the phase: tensors and plain values, which may be nested."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a result of `state_dict`, after `start`."""
        return
