"""The numbers of a table in the coordinates of an imputer: real columns nearly Gaussian, angles and
positions unchanged."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.tables.features import around
from cnf.tables.masked_flow import gaussianizing_maps
from cnf.transforms import Charts
from cnf.transforms.marginals import MarginalTransform
from cnf.transforms.whitening import HALF_LOG_2PI, Whitening


@dataclass(frozen=True)
class NumberMaps:
    """The transforms of a model's flow, for any set of known numbers.

    Attributes:
        marginals: transform of each real column separately.
        whitening: transform of the real columns given the features of states and context.
        charts: transform of angles and spheres; None if all numbers are real.
    """

    marginals: MarginalTransform
    whitening: Whitening
    charts: Charts | None

    @classmethod
    def of(cls, flow: CNF, charts: Charts | None) -> NumberMaps:
        """The transforms of a flow with a `gaussianizing_transform`."""
        charts = None if charts is None else charts.to(flow.device)
        return cls(*gaussianizing_maps(flow), charts)

    @property
    def reals(self) -> list[int]:
        """Indices of the real columns among the numeric ones."""
        return list(range(self.marginals.dim)) if self.charts is None else self.charts.reals

    def by_cell(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers y (rows, numeric), the real ones nearly Gaussian, and the logarithm of each slope, which
        is zero for an angle."""
        if self.charts is None:
            return self.marginals.by_cell(values)
        y, log_slope = values.double().clone(), torch.zeros_like(values, dtype=torch.float64)
        y[:, self.reals], log_slope[:, self.reals] = self.marginals.by_cell(values[:, self.reals])
        return y, log_slope

    def inverse(self, y: Tensor) -> Tensor:
        """Numbers (rows, numeric) in the units of the table."""
        if self.charts is None:
            return self.marginals.inverse(y)
        values = y.clone()
        values[:, self.reals] = self.marginals.inverse(y[:, self.reals])
        return values

    def features(self, y: Tensor, given: Tensor) -> Tensor:
        """The network inputs from the given numbers (rows, width): y of real columns, then cosine and sine
        of angles and unit vectors of positions."""
        if self.charts is None:
            return y
        return torch.cat((y[:, self.reals], around(self.charts, y, given)), 1)

    def coordinates(self, shown: Tensor) -> Tensor:
        """Mask of the coordinates of the flow (rows, coordinates), from a mask of numbers (rows,
        numeric)."""
        return shown if self.charts is None else shown[:, self.charts.coordinates]

    def whiten(
        self, y: Tensor, free: Tensor, features: Tensor, given: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The free numbers z (rows, numeric) given the others, and log |det ∂z/∂y| (rows,) plus ½ log 2π
        for every real number that is not free."""
        reals = self.reals
        parts = (y[:, reals], free[:, reals], features, given[:, reals])
        white, log_det = self.whitening.whiten(*parts)
        z = y.where(free, 0.0)
        z[:, reals] = white
        return z, log_det + HALF_LOG_2PI * (~free[:, reals]).sum(1, dtype=log_det.dtype)

    def unwhiten(
        self, z: Tensor, y: Tensor, free: Tensor, features: Tensor, given: Tensor
    ) -> Tensor:
        """y (rows, numeric), with the free numbers computed from z; the others stay."""
        reals, found = self.reals, torch.where(free, z, y)
        parts = (z[:, reals], y[:, reals], free[:, reals], features, given[:, reals])
        found[:, reals] = self.whitening.unwhiten(*parts)
        return found

    def base_points(self, normal: Tensor) -> Tensor:
        """Base points of the flow (rows, numeric), in its units, from normal numbers (rows, numeric);
        they are uniform on circles and spheres."""
        if self.charts is None:
            return normal
        found, even = normal.clone(), torch.special.ndtr(normal)
        for place, (begin, end) in self.charts.turns.items():
            found[:, place] = begin + (end - begin) * even[:, place]
        for _, latitude in self.charts.spheres:
            sine = (2 * even[:, latitude] - 1).clamp(-1, 1)
            found[:, latitude] = sine.asin() * (180 / math.pi)
        return found
