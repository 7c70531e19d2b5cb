"""A flow through time whose mass changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.polynomial import Chebyshev
from torch import Tensor

from cnf.fields.base import FieldAt
from cnf.fields.growing import MEAN_DEGREE, GrowingField, Growth
from cnf.fields.through_time import ThroughTime
from cnf.flows.flow import CNF
from cnf.flows.scoring import chunk_size
from cnf.flows.snapshot_flow import SnapshotFlow
from cnf.inputs import Numbers, as_shape
from cnf.ode import Solver, System, SystemAt, tensor_like

# Draws by which the mean rate is known: log p to 0.006 nats where weights vary by their own size.
MEAN_DRAWS = 32_768
# Step of finite differences of g, in model coordinates.
DIFFERENCE = 1e-2
MEAN_TIMES = 33  # at which they are looked at
# Draws of the base for one that is kept, and altogether at least: weights are seldom larger.
DRAWS_FOR_ONE, FEWEST_DRAWS = 8, 1_024


def carried(
    field: GrowingField,
    x: Tensor,
    times: Sequence[float],
    solver: Solver,
    probe: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Paths of particles x (rows, dim) in model coordinates, from the first of the times.

    Args:
        field: carries them.
        x: (rows, dim)
        times: of [0, 1], increasing.
        solver: of [0, 1].
        probe: ε (rows, dim) of unit covariance, for the slope of g: E (ε·∇g)² = |∇g|².

    Returns:
        Positions (time, rows, dim), and the integrals of g and, with a probe, of (ε·∇g)² along the
        paths (time, rows, rates).
    """
    bound = field.bind()

    def at(times: Tensor) -> list[SystemAt]:
        moments = zip(bound.at(times), times)
        return [SystemAt(now.velocity, partial(rates, now, t)) for now, t in moments]

    def rates(now: FieldAt, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        g = field.growth(t, x)
        found = [g] if probe is None else [g, squared_slope(field.growth, t, x, probe)]
        return now.velocity(x), torch.stack(found, -1)

    part, system = solver.between(times[0], times[-1]), System(at, bound.tensors)
    found = part.solve(system, x, tensor_like(times, x), gradient="direct", estimate=False)
    return found.x, found.q


def squared_slope(growth: Growth, t: Tensor, x: Tensor, probe: Tensor) -> Tensor:
    """(ε·∇g)² (*batch,) at x (*batch, dim) by a finite difference, for probes ε of the same shape."""
    rise = growth(t, x + DIFFERENCE * probe) - growth(t, x)
    return (rise / DIFFERENCE).square()


class GrowingFlow(SnapshotFlow):
    """A `SnapshotFlow` whose mass grows at a rate g(t, x), fitted by
    `cnf.fit_snapshots(growth=True)`.

        ∂ρ/∂t + div(ρ v) = g ρ,    ρ = M(time) p(x, time).

    `log_prob` is that of p, which is normalized at every time. `sample` draws particles from the
    base and resamples them by exp ∫ g. The inner flow, `flow`, also has the density p, but its
    samples are not resampled.

    Args:
        flow: a flow whose field is a `ThroughTime` of a `GrowingField`.

    Raises:
        ValueError: for a flow with another field.

    Example:
        >>> moving = GrowingFlow.growing(CNF(dim=2), {10.0: 1.0, 30.0: 5.0})
        >>> round(moving.mass(20.0), 3)
        2.236
        >>> moving.growth(torch.zeros(5, 2), time=20.0).shape
        torch.Size([5])
    """

    @classmethod
    def growing(cls, flow: CNF, masses: Mapping[float, float]) -> GrowingFlow:
        """The motion of a flow without a context, from its base at the first time to its data at
        the last one, with no growth except that of the known masses."""
        times, logs = list(masses), [math.log(mass) for mass in masses.values()]
        timed = SnapshotFlow.around(flow, times[0], times[-1]).flow
        shares = [(time - times[0]) / (times[-1] - times[0]) for time in times]
        growth = Growth(flow.dim, tuple(shares), tuple(logs)).to(flow.device, flow.dtype)
        timed.field = ThroughTime(GrowingField(flow.field, growth))
        return cls(timed)

    def follow(self, flow: CNF) -> None:
        """Take over field, base and preprocessing of a flow without a context; the growth is not
        changed."""
        growing = GrowingField(flow.field, self.field.growth)
        super().follow(flow)
        self.flow.field = ThroughTime(growing)

    @property
    def field(self) -> GrowingField:
        """dx/dt and the growth between t = 0 and t = 1, the first and the last snapshot."""
        field = super().field
        assert isinstance(field, GrowingField)
        return field

    def mass(self, time: float) -> float:
        """The total mass M(time), in the units of the masses of the fit.

        Raises:
            ValueError: for a time beyond the snapshots.
        """
        return math.exp(self.field.growth.log_mass(self._share(time)))

    def growth(self, x: Numbers, time: float) -> Tensor:
        """The relative growth rate g (*batch,) at points x (*batch, dim), per unit of time.

        Raises:
            ValueError: for a time beyond the snapshots.
        """
        share, growth = self._share(time), self.field.growth
        y = self._model(x)
        rate = growth(y.new_tensor(share), y) + growth.log_mass(share, order=1)
        return rate / (self.span[1] - self.span[0])

    def trajectory_and_growth(
        self, x: Numbers, times: Sequence[float], *, start: float
    ) -> tuple[Tensor, Tensor]:
        """Paths of particles (times, *batch, dim), as in `trajectory`, and the growth factor of
        the mass of each since `start` (times, *batch).

        Raises:
            ValueError: for a time beyond the snapshots.
        """
        z = self.flow.bind(self._context(start)).trajectory(x, [0.0], reverse=True)[0]
        shares = [self._share(time) for time in (start, *times)]
        there, log_growth = self._at(self._model(z).flatten(0, -2), shares)
        masses = [self.field.growth.log_mass(share) for share in shares]
        log_growth = log_growth + tensor_like(masses, log_growth)[:, None]
        path = self.flow.preprocess.inverse(there[1:])
        grown = (log_growth[1:] - log_growth[0]).exp()
        return path.unflatten(1, z.shape[:-1]), grown.unflatten(1, z.shape[:-1])

    @torch.no_grad()
    def sample(
        self,
        shape: int | Sequence[int],
        time: float,
        *,
        extrapolate: bool = False,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Draws (*shape, dim) at a time, in the units of the data.

        Several times as many particles are carried from the base to that time, and resampled in
        proportion to their mass. A particle whose mass exceeds `DRAWS_FOR_ONE` times the mean is
        drawn more than once.
        """
        share, batch = self._share(time), as_shape(shape)
        count, flow = math.prod(batch), self.flow
        many = max(DRAWS_FOR_ONE * count, FEWEST_DRAWS)
        z = flow.base.sample((many,), generator, dtype=flow.dtype, device=flow.device)
        there, log_growth = self._at(z, [share])
        kept = resampled(log_growth[0], count, generator)
        x = flow.preprocess.inverse(there[0, kept])
        return x.reshape(*batch, flow.dim).to(dtype or x.dtype)

    @torch.no_grad()
    def settle(self, seed: int, draws: int = MEAN_DRAWS) -> None:
        """Subtract from the rate its mean over the mass at every time, so that p is normalized.

        The mean is estimated from seeded draws, as a polynomial in time."""
        growth, flow = self.field.growth, self.flow
        growth.mean.zero_()
        generator = torch.Generator(flow.device).manual_seed(seed)
        z = flow.base.sample((draws,), generator, dtype=flow.dtype, device=flow.device)
        times = (1 - np.cos(np.pi * np.arange(MEAN_TIMES) / (MEAN_TIMES - 1))) / 2
        there, log_growth = self._at(z, times.tolist())
        rates = torch.stack([growth(t, x) for t, x in zip(tensor_like(times, z), there)])
        means = (log_growth.softmax(1) * rates).sum(1)
        found = Chebyshev.fit(times, means.numpy(force=True), MEAN_DEGREE, domain=[0, 1])
        growth.mean.copy_(torch.from_numpy(found.coef))

    def _at(self, z: Tensor, shares: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Where particles z (rows, dim) of the base are at some times in [0, 1], in any order, (time,
        rows, dim), and ∫ g dt on their ways there (time, rows)."""
        times = sorted({0.0, *shares})
        if len(times) == 1:
            return z.expand(len(shares), *z.shape), z.new_zeros(len(shares), len(z))
        places, solver = [times.index(share) for share in shares], self.flow.solver
        parts = [carried(self.field, part, times, solver) for part in z.split(chunk_size(z))]
        there, log_growth = (torch.cat(part, 1)[places] for part in zip(*parts))
        return there, log_growth[..., 0]

    def _model(self, x: Numbers) -> Tensor:
        """Points (*batch, dim) in model coordinates."""
        return self.flow.to_model_coordinates(x, self._context(self.span[0]))[0]

    def _share(self, time: float) -> float:
        """A time as a share of the span."""
        share = self.flow.context_map(self._context(time))[0].item()
        return min(max(share, 0.0), 1.0)

    def _context(self, time: Any, *, extrapolate: bool = False) -> Tensor:
        """Times (*batch, 1) between the snapshots."""
        if extrapolate:
            raise ValueError(
                "extrapolate: expected False; growth beyond the snapshots is not known"
            )
        return super()._context(time, extrapolate=False)


def resampled(log_weights: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Indices (count,) drawn in proportion to weights by systematic resampling (Kitagawa 1996), in
    random order; the number of draws of each is exact up to rounding.

    Example:
        >>> resampled(torch.tensor([0.0, 3.0]).log(), 2, None)
        tensor([1, 1])
    """
    ends = log_weights.double().softmax(0).cumsum(0)
    first = torch.rand(1, generator=generator, device=ends.device)
    points = (torch.arange(count, device=ends.device) + first) / count
    places = torch.searchsorted(ends, points).clamp_max(len(ends) - 1)
    return places[torch.randperm(count, generator=generator, device=ends.device)]
