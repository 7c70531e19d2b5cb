"""The processes of a fit: a single one, or those of torch.distributed, which train as one.

Every process has all rows, makes the same choices from the same seed and draws the same batches. It
computes the loss of its own part of a batch; the mean of their gradients is that of the whole batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

from cnf.training.errors import TrainingError


class Processes:
    """A single process, which handles all rows.

    Attributes:
        rank: rank of this process.
        count: number of processes.

    Example:
        >>> alone = Processes()
        >>> alone.first, alone.part(torch.ones(3)), alone.agreed(2.0)
        (True, tensor([1., 1., 1.]), 2.0)
    """

    rank, count = 0, 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def part(self, rows: Tensor) -> Tensor:
        """The rows of this process in a batch (rows, …)."""
        return rows

    def mean(self, module: nn.Module, value: Tensor, reported: float) -> tuple[Tensor, float]:
        """The means of a loss and of its reported value over all processes; the gradients of the module
        are replaced by their means."""
        return value, reported

    def agreed(self, number: float) -> float:
        """The number of the first process, which all processes use."""
        return number

    def share(self, module: nn.Module) -> None:
        """Copy parameters and buffers of the first process to all others."""


class ProcessGroup(Processes):
    """The processes of the default group of torch.distributed.

    Raises:
        TrainingError: by every method, if another process has ended.
    """

    def __init__(self) -> None:
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
        on_gpu = distributed.get_backend() == "nccl"
        self.device = torch.device("cuda" if on_gpu else "cpu")

    def part(self, rows: Tensor) -> Tensor:
        """Every `count`-th row.

        Raises:
            ValueError: for rows that cannot be divided evenly.
        """
        if rows.shape[0] % self.count:
            raise ValueError(
                f"batch: expected a multiple of {self.count} processes; got {rows.shape[0]} rows"
            )
        return rows[self.rank :: self.count]

    def mean(self, module: nn.Module, value: Tensor, reported: float) -> tuple[Tensor, float]:
        """The means in one reduction; a loss that is not finite in one process is so in all."""
        moved = [parameter for parameter in module.parameters() if parameter.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in moved]
        numbers = moved[0].new_tensor([value.item(), reported])
        flat = torch.cat([*(part.reshape(-1) for part in gradients), numbers])
        with _whole():
            distributed.all_reduce(flat)
        *means, numbers = (flat / self.count).split([part.numel() for part in gradients] + [2])
        for parameter, mean in zip(moved, means):
            if parameter.grad is not None:
                parameter.grad.copy_(mean.view_as(parameter))
        return numbers[0], numbers[1].item()

    def agreed(self, number: float) -> float:
        """The number of the first process, in float64."""
        told = torch.tensor(number, dtype=torch.float64, device=self.device)
        with _whole():
            distributed.broadcast(told, 0)
        return told.item()

    @torch.no_grad()
    def share(self, module: nn.Module) -> None:
        """Replace parameters and buffers of the other processes by those of the first one."""
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                told = tensor.contiguous()
                with _whole():
                    distributed.broadcast(told, 0)
                tensor.copy_(told)


def processes() -> Processes:
    """The processes of the current fit."""
    if distributed.is_available() and distributed.is_initialized():
        return ProcessGroup()
    return Processes()


def shared_seconds() -> float:
    """The clock of budgets: that of the first process, so that phases end at the same step in all."""
    return processes().agreed(time.perf_counter())


@contextmanager
def _whole() -> Iterator[None]:
    """Raise a one-line error if another process has ended."""
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            "another process of the fit ended, so this one stops; see its message,"
            " and start the fit again with --resume or its checkpoint"
        ) from error
