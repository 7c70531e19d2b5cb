"""A flow through time: the density of rows at any time between snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnf.fields.base import VelocityField
from cnf.fields.through_time import ThroughTime
from cnf.flows.flow import CNF
from cnf.flows.model_file import write_model
from cnf.flows.scoring import Evaluation
from cnf.flows.serialization import describe
from cnf.flows.state import tensors_of
from cnf.inputs import Numbers
from cnf.transforms import Affine

# Of the time from the first to the last snapshot: what rounding may move an end by.
ROUNDED = 1e-9


class SnapshotFlow(nn.Module):
    """The density p(x, time) of one motion at every time from the first snapshot to the last,
    fitted by `cnf.fit_snapshots`.

    With dx/dt = v(t, x), log p decreases by ∫ tr ∂v/∂x dt along the path of a particle from the
    first time, at which the density is that of the base. Times are in the user's units.
    Extrapolation beyond the first and the last snapshot uses the velocity at that snapshot.

    Args:
        flow: a flow with a `ThroughTime` field, whose context is the time.

    Attributes:
        history: the `cnf.History` of the fit; None for a flow from a file.

    Raises:
        ValueError: for a flow with another field.

    Example:
        >>> moving = SnapshotFlow.around(CNF(dim=2), 10.0, 30.0)
        >>> moving.log_prob(torch.zeros(5, 2), time=17.5).shape
        torch.Size([5])
        >>> moving.sample(3, time=10.0).shape
        torch.Size([3, 2])
    """

    def __init__(self, flow: CNF) -> None:
        super().__init__()
        if not isinstance(flow.field, ThroughTime):
            raise ValueError(
                "flow: expected one of `cnf.fit_snapshots`, whose context is the time"
            )
        self.flow = flow
        self.history: Any = None

    @classmethod
    def around(cls, flow: CNF, first: float, last: float) -> SnapshotFlow:
        """The motion of a flow without a context, from its base at the time `first` to its data at
        the time `last`; parts and solver are shared.

        Raises:
            ValueError: for a flow with a context.
        """
        timed = CNF(
            flow.dim, context_dim=1, field=ThroughTime(flow.field),
            base=flow.base, preprocess=flow.preprocess, solver=flow.solver,
        )  # fmt: skip
        start, length = torch.tensor([first, last - first], dtype=torch.float64)
        timed.context_map = Affine(start.view(1), length.view(1, 1)).to(flow.device)
        timed.error_model = flow.error_model
        timed.automatic = flow.automatic & {"solver"}
        return cls(timed)

    def follow(self, flow: CNF) -> None:
        """Take over field, base and preprocessing of a flow without a context."""
        self.flow.field = ThroughTime(flow.field)
        self.flow.base, self.flow.preprocess = flow.base, flow.preprocess

    def settle(self, seed: int) -> None:
        """Nothing to do after training."""

    @property
    def field(self) -> VelocityField:
        """dx/dt between t = 0 and t = 1, the first and the last snapshot."""
        field: Any = self.flow.field
        return field.field

    @property
    def span(self) -> tuple[float, float]:
        """The times of the first and the last snapshot."""
        clock = self.flow.context_map
        ends = clock.inverse(
            torch.tensor([[0.0], [1.0]], dtype=torch.float64).to(self.flow.device)
        )
        first, last = ends.flatten().tolist()
        return first, last

    def log_prob(self, x: Numbers, time: Any, *, extrapolate: bool = False) -> Tensor:
        """log p(x, time) in nats and in the units of x, row by row.

        Args:
            x: (*batch, dim)
            time: one time for all rows, or one for each row (*batch,).
            extrapolate: whether times beyond the snapshots are allowed.

        Returns:
            (*batch,); see `CNF.log_prob`.

        Raises:
            ValueError: for a time beyond the snapshots, or a wrong number of columns.
        """
        return self.flow.log_prob(x, self._context(time, extrapolate=extrapolate))

    def evaluate(self, x: Numbers, time: Any, *, extrapolate: bool = False) -> Evaluation:
        """`log_prob` with an error bound, the NFE and a verdict for each row."""
        return self.flow.evaluate(x, self._context(time, extrapolate=extrapolate))

    def sample(
        self,
        shape: int | Sequence[int],
        time: float,
        *,
        extrapolate: bool = False,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Draws (*shape, dim) at a time, in the units of the data; see `CNF.sample`."""
        context = self._context(time, extrapolate=extrapolate)
        return self.flow.sample(shape, context, generator=generator, dtype=dtype)

    def trajectory(
        self, x: Numbers, times: Sequence[float], *, start: float, extrapolate: bool = False
    ) -> Tensor:
        """Paths of particles (times, *batch, dim), in the units of the data.

        Args:
            x: positions at the time `start`, (*batch, dim).
            times: times of the result, in any order.
            start: any time, before or after those.
            extrapolate: whether times beyond the snapshots are allowed.

        Raises:
            ValueError: for a time beyond the snapshots.
        """
        here = self._context(start, extrapolate=extrapolate)
        there = self._context(times, extrapolate=extrapolate)
        z = self.flow.bind(here).trajectory(x, [0.0], reverse=True)[0]
        return torch.stack([self.flow.bind(t).trajectory(z, [1.0])[0] for t in there])

    def velocity(self, x: Numbers, time: float, *, extrapolate: bool = False) -> Tensor:
        """dx/dt (*batch, dim) at points x (*batch, dim), in the units of the data and of time."""
        first, last = self.span
        whole = self._context(last, extrapolate=False)
        share = self.flow.condition(self._context(time, extrapolate=extrapolate)).item()
        return self.flow.velocity(share, x, whole) / (last - first)

    def save(self, path: str | Path) -> None:
        """Write the flow to one safetensors file, atomically; see `cnf.load`."""
        config = {
            "class": type(self).__name__,
            **describe(self.flow),
            "metadata": self.flow.metadata,
        }
        write_model(path, config, tensors_of(self.flow))

    def _context(self, time: Any, *, extrapolate: bool) -> Tensor:
        """Times (*batch, 1) as the flow takes them, once they have proved to be allowed."""
        times = torch.as_tensor(time, dtype=torch.float64, device=self.flow.device)[..., None]
        shares = self.flow.context_map(times)[0]
        beyond = ~((shares >= -ROUNDED) & (shares <= 1 + ROUNDED))
        if beyond.any() and not (extrapolate and times.isfinite().all()):
            first, last = self.span
            raise ValueError(
                f"time: expected {first:.12g} to {last:.12g}, between the snapshots; got"
                f" {times[beyond][0].item():.12g}: pass extrapolate=True to go beyond"
            )
        return times
