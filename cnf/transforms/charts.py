"""Periodic columns: angles, and longitude with latitude."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cnf.fields.geometry import Geometry, unit, wrap
from cnf.inputs import as_count, brief
from cnf.registry import described, rebuild, register
from cnf.transforms.affine import Affine, Transform


@register
class Charts(Transform):
    """Angles in radians, longitude and latitude as unit vectors, other columns by a map of their
    own.

    Model coordinates are the mapped real columns, then the angles θ = 2π (x − start) / period − π,
    then for each pair of longitude λ and latitude φ, in degrees, (cos φ cos λ, cos φ sin λ, sin φ).
    The density is per unit of a real column and of an angle, and per unit area of the unit sphere
    for a pair: its part of the log-Jacobian is zero. The inverse gives angles in [start, start +
    period), and longitudes likewise.

    If a mask (*batch, coordinates) marks an angle or a pair as absent, the log-Jacobian removes
    the contribution of a uniform base for these coordinates.

    Args:
        dim: number of columns of x.
        periods: the period of each angular column, by its index.
        spheres: indices of longitude and latitude of each pair.
        starts: smallest values of angular columns and of longitudes, by index; the defaults are 0
            for an angle and −180 for a longitude.
        rest: the map of the other columns; None is the identity.

    Raises:
        ValueError: for an index that is out of range or repeated, or a period that is not
            positive.

    Example:
        >>> hours = Charts(1, periods={0: 24.0})
        >>> y, ladj = hours(torch.tensor([[30.0]]))
        >>> round(hours.inverse(y).item(), 6)
        6.0
    """

    periods: Tensor
    starts: Tensor
    rest: Transform

    def __init__(
        self,
        dim: int,
        periods: Mapping[int, float] | None = None,
        spheres: Sequence[tuple[int, int]] = (),
        *,
        starts: Mapping[int, float] | None = None,
        rest: Transform | None = None,
    ) -> None:
        super().__init__(dim)
        if not isinstance(periods, Mapping | None):
            raise TypeError(
                f"periods: expected a mapping such as {{0: 360.0}}; got {brief(periods)}"
            )
        periods, starts = periods or {}, starts or {}
        self.angles = list(periods)
        self.spheres = _pairs(spheres)
        taken = [*self.angles, *(place for pair in self.spheres for place in pair)]
        _check(dim, taken, periods)
        self.reals = [place for place in range(dim) if place not in taken]
        longitudes = [pair[0] for pair in self.spheres]
        turns = [*periods.values(), *[360.0] * len(longitudes)]
        begin = [starts.get(place, 0.0) for place in self.angles]
        begin += [starts.get(place, -180.0) for place in longitudes]
        self.register_buffer("periods", torch.tensor(turns, dtype=torch.float64))
        self.register_buffer("starts", torch.tensor(begin, dtype=torch.float64))
        self.rest = Affine.identity(len(self.reals)) if rest is None else rest
        if self.rest.dim != len(self.reals):
            raise ValueError(
                f"rest: expected a map of {len(self.reals)} columns; got one of {self.rest.dim}"
            )

    @property
    def turns(self) -> dict[int, tuple[float, float]]:
        """One turn of every angle and longitude, and all latitudes."""
        places = [*self.angles, *(longitude for longitude, _ in self.spheres)]
        starts, ends = self.starts.tolist(), (self.starts + self.periods).tolist()
        latitudes = {latitude: (-90.0, 90.0) for _, latitude in self.spheres}
        return dict(zip(places, zip(starts, ends))) | latitudes

    def log_area(self, x: Tensor) -> Tensor:
        """log Πⱼ (π/180)² cos φⱼ (*batch,): of a square degree at each latitude φⱼ of x (*batch,
        dim)."""
        latitudes = torch.deg2rad(x[..., [latitude for _, latitude in self.spheres]])
        return (latitudes.cos().log() + 2 * math.log(math.pi / 180)).sum(-1)

    @property
    def geometry(self) -> Geometry:
        """The space of y."""
        return Geometry(len(self.reals), len(self.angles), len(self.spheres))

    @property
    def coordinates(self) -> list[int]:
        """The column of x to which each coordinate of y belongs."""
        longitudes = [pair[0] for pair in self.spheres for _ in range(3)]
        return [*self.reals, *self.angles, *longitudes]

    def with_rest(self, rest: Transform) -> Charts:
        """The same with another map of the real columns."""
        places = [*self.angles, *(pair[0] for pair in self.spheres)]
        periods = dict(zip(self.angles, self.periods.tolist()))
        starts = dict(zip(places, self.starts.tolist()))
        return Charts(self.dim, periods, self.spheres, starts=starts, rest=rest)

    def config(self) -> dict[str, Any]:
        """The indices of the columns and the map of the others; periods and starts are tensors."""
        pairs = [list(pair) for pair in self.spheres]
        return {"angles": self.angles, "spheres": pairs, "rest": described(self.rest)}

    @classmethod
    def from_config(cls, config: dict[str, Any], dim: int) -> Charts:
        """A map with these indices, whose tensors are then read from a file."""
        periods = {int(place): 1.0 for place in config["angles"]}
        pairs = [(int(a), int(b)) for a, b in config["spheres"]]
        free = dim - len(periods) - 2 * len(pairs)
        return cls(dim, periods, pairs, rest=rebuild(Transform, config["rest"], free))

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Model coordinates y (*batch, coordinates) in float64, and the log-Jacobian, () or
        (*batch,)."""
        x = x.double()
        reals, ladj = x[..., self.reals], x.new_zeros(())
        if self.reals:
            reals, ladj = self.rest(reals, *self._of_rest(context, mask))
        count = len(self.angles)
        turned = x[..., self.angles] - self.starts[:count]
        angles = wrap(turned * (2 * math.pi / self.periods[:count]) - math.pi)
        y = self.geometry.join(reals, angles, self._vectors(x))
        y = y if mask is None else y.where(mask, 0.0)
        return y, ladj + self._log_slopes(mask)

    def inverse(
        self, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Data x (*batch, dim), in the dtype of y."""
        reals, angles, vectors = self.geometry.split(y.double())
        x = y.new_zeros(*y.shape[:-1], self.dim)
        if self.reals:
            x[..., self.reals] = self.rest.inverse(
                reals.to(y.dtype), *self._of_rest(context, mask)
            )
        a, b, c = vectors.unbind(-1)
        longitudes = torch.atan2(b, a) * (180 / math.pi)
        turned = [angles + math.pi, longitudes * (math.pi / 180) - self._start_angles()]
        wrapped = self._from_start(torch.cat(turned, -1))
        places = [*self.angles, *(pair[0] for pair in self.spheres)]
        x[..., places] = wrapped.to(y.dtype)
        latitudes = torch.atan2(c, torch.hypot(a, b)) * (180 / math.pi)
        x[..., [pair[1] for pair in self.spheres]] = latitudes.to(y.dtype)
        return x if mask is None else x.where(self.column_mask(mask), 0.0)

    def pushforward(
        self, v: Tensor, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """dx/dt (*batch, dim) for dy/dt = v at y (*batch, coordinates), in the dtype of v."""
        (real, turn, spin), (at, _, vectors) = self.geometry.split(v), self.geometry.split(y)
        x = v.new_zeros(*v.shape[:-1], self.dim)
        if self.reals:
            x[..., self.reals] = self.rest.pushforward(real, at, *self._of_rest(context, mask))
        x[..., self.angles] = turn * (self.periods[: len(self.angles)] / (2 * math.pi)).to(v.dtype)
        (a, b, _), (da, db, dc) = unit(vectors)[0].unbind(-1), spin.unbind(-1)
        across = torch.hypot(a, b).clamp(min=torch.finfo(v.dtype).eps)
        degrees = 180 / math.pi
        x[..., [pair[0] for pair in self.spheres]] = degrees * (a * db - b * da) / across.square()
        x[..., [pair[1] for pair in self.spheres]] = degrees * dc / across
        return x if mask is None else x.where(self.column_mask(mask), 0.0)

    def column_mask(self, mask: Tensor) -> Tensor:
        """Which columns (*batch, dim) a row has, from its coordinates."""
        places: list[int] = [0] * self.dim
        for coordinate, place in enumerate(self.coordinates):
            places[place] = coordinate
        for longitude, latitude in self.spheres:
            places[latitude] = places[longitude]
        return mask[..., places]

    def _vectors(self, x: Tensor) -> Tensor:
        """Unit vectors (*batch, spheres, 3) of longitudes and latitudes."""
        longitudes, latitudes = (
            x[..., [pair[k] for pair in self.spheres]] * (math.pi / 180) for k in (0, 1)
        )
        across = latitudes.cos()
        parts = (across * longitudes.cos(), across * longitudes.sin(), latitudes.sin())
        return torch.stack(parts, -1)

    def _start_angles(self) -> Tensor:
        """Where longitudes start, in radians (spheres,)."""
        return self.starts[len(self.angles) :] * (math.pi / 180)

    def _from_start(self, angles: Tensor) -> Tensor:
        """Values in [start, start + period) of angles (…, angles + spheres) in radians from it."""
        turns = torch.remainder(angles / (2 * math.pi), 1.0)
        return self.starts + self.periods * turns.where(turns < 1, 0.0)

    def _of_rest(
        self, context: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Context and mask as a flow over the real columns alone would have them."""
        if mask is None or context is None:
            return context, mask
        count, width = len(self.reals), self.geometry.dim
        return torch.cat([context[..., :count], context[..., width:]], -1), mask[..., :count]

    def _log_slopes(self, mask: Tensor | None) -> Tensor:
        """The log-Jacobian of angles and pairs, () or (*batch,)."""
        slopes = (2 * math.pi / self.periods[: len(self.angles)]).log()
        if mask is None:
            return slopes.sum()
        count, width = len(self.reals), len(self.angles)
        angular, on_sphere = mask[..., count : count + width], mask[..., count + width :: 3]
        angles = torch.where(angular, slopes, math.log(2 * math.pi)).sum(-1)
        return angles + math.log(4 * math.pi) * (~on_sphere).sum(-1)


def _pairs(spheres: Any) -> list[tuple[int, int]]:
    try:
        return [
            (as_count("spheres", longitude, 0), as_count("spheres", latitude, 0))
            for longitude, latitude in spheres
        ]
    except (TypeError, ValueError):
        raise TypeError(
            "spheres: expected pairs of columns (longitude, latitude), such as [(0, 1)]; got"
            f" {brief(spheres)}"
        ) from None


def _check(dim: int, taken: Sequence[int], periods: Mapping[int, float]) -> None:
    if any(not 0 <= place < dim for place in taken) or len(set(taken)) < len(taken):
        raise ValueError(
            f"angles and spheres: expected different columns from 0 to {dim - 1}; got {taken}"
        )
    for place, period in periods.items():
        if not (period > 0 and math.isfinite(period)):
            raise ValueError(
                f"period of column {place}: expected a positive number such as 360; got {period}"
            )
