"""Methods of a grid, by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from cnf.ode.system import Gradient, Solution, System

Nodes = tuple[float, ...]
# A node closer than this to a requested time, as a fraction of the span, makes no step of its own.
NEAR = 1e-6


class Method(ABC):
    """How a grid makes its steps; `cnf.ode.METHODS` holds methods by name."""

    @property
    @abstractmethod
    def estimates_error(self) -> bool:
        """Whether every step comes with an estimate of its error."""

    @abstractmethod
    def evaluations(self, nodes: Nodes) -> int:
        """Velocity evaluations of a solve over all nodes."""

    @abstractmethod
    def solve(
        self,
        nodes: Nodes,
        system: System,
        x: Tensor,
        t: Tensor,
        *,
        gradient: Gradient,
        estimate: bool,
    ) -> Solution:
        """States at the times t (time,) from x (*batch, dim) at t[0], through nodes that are
        fractions of the span of t."""

    def step_times(self, nodes: Nodes) -> Nodes:
        """Fractions where the steps of a solve start and end."""
        return nodes


def picked(whole: Tensor, places: Sequence[int]) -> Tensor:
    """Some entries of the first axis; an index of them would have to travel to the device."""
    return torch.stack([whole[k] for k in places])


def cumulative(q: Tensor) -> Tensor:
    """Quadratures at the nodes (steps + 1, …), from what each step adds (steps, …)."""
    return torch.cat([torch.zeros_like(q[:1]), q.cumsum(0)])
