"""What a phase of training minimizes."""

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

# A loss is lost where it stays this many times above what it was.
LOSS_FACTOR = 10.0


class Loss(NamedTuple):
    """The loss of one training step.

    Attributes:
        value: a scalar, which is differentiated.
        reported: the objective as a number, for the history and for the watch over divergence.
    """

    value: Tensor
    reported: float


# Of a training step whose rows no solver followed.
LOST = Loss(torch.tensor(torch.nan), torch.nan)


@dataclass(frozen=True)
class Task:
    """What an objective works with during a phase.

    Attributes:
        flow: the flow in training.
        batches: training rows in model coordinates.
        pilot: a few of the training rows, in the units of the data.
        batch: rows of a training step.
        generator: the source of all randomness.
        processes: those that share out each batch.
    """

    flow: CNF
    batches: Sampler
    pilot: Rows
    batch: int
    generator: torch.Generator
    processes: Processes = Processes()  # noqa: RUF009 - without state

    def own(self, *parts: Tensor | None) -> list[Any]:
        """This process's rows of the parts of a batch, each (rows, …) or None."""
        return [None if part is None else self.processes.part(part) for part in parts]


class Objective(Protocol):
    """An objective of training. `name`, `start` and `loss` are needed; the rest has defaults.

    The attributes set by the constructor are the configuration; those set by `start` are the state
    of a phase. A trainer starts a copy, so that one objective may serve many phases. Declare the
    configuration as a dataclass: a checkpoint compares its fields to tell whether it belongs to the
    fit.
    """

    name: str

    def start(self, task: Task) -> None:
        """Begin a phase."""

    def loss(self, step: int, progress: float) -> Loss:
        """The loss of training step `step` of the phase, from 1, at a share of its budget.

        Raises:
            SolverError: where no solver follows the field; the trainer then goes back.
        """
        raise NotImplementedError

    def diverged(self, window: Sequence[float], baseline: float) -> bool:
        """Whether the last reported losses are all far above the largest of a calm window."""
        return min(window) > LOSS_FACTOR * baseline

    def selection_penalty(self, flow: CNF) -> float | None:
        """Nats that count against a candidate in the choice of the best weights; None if unknown."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """The state of the phase: tensors and plain values, nested at will."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a state that `state_dict` gave, after `start`."""
        return
