"""The flow over the columns that rows have, where all rows lack the same others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cnf.fields.base import BoundField, FieldAt, VelocityField
from cnf.fields.geometry import Geometry
from cnf.flows.flow import CNF
from cnf.flows.product_base import plain_base
from cnf.transforms import Transform


def flow_of_present(flow: CNF, context: Tensor | None) -> CNF:
    """The flow over the columns that rows have; the flow itself if they have all of them.

    Under the context of every such row, its density is that of the whole flow.

    Args:
        flow: a flow whose base is a product, as that of every flow with absent columns.
        context: of rows that lack the same columns (rows, context_dim), or None.

    Example:
        >>> from cnf.fields.masked import MaskedField
        >>> flow = CNF(2, context_dim=2, field=MaskedField(2, (8, 8), context_dim=2))
        >>> flow_of_present(flow, torch.tensor([[0.0, 1.0]])).dim
        1
    """
    masks = flow.field.mask(context)
    if masks is None or bool(masks[:1].all()):
        return flow
    mask = masks[0]
    field = FieldOfPresent(flow.field, mask)
    preprocess = TransformOfPresent(flow.preprocess, mask)
    part = CNF(
        preprocess.dim, context_dim=flow.context_dim, field=field,
        base=plain_base(field.geometry), preprocess=preprocess,
        solver=flow.solver, divergence=flow.divergence,
    )  # fmt: skip
    part.context_map, part.error_model, part.metadata = (
        flow.context_map, flow.error_model, flow.metadata,
    )  # fmt: skip
    return part.train(flow.training)


class FieldOfPresent(VelocityField):
    """The velocity of the present coordinates of a field with a mask.

    Args:
        whole: the field; it ignores the values of absent coordinates.
        mask: which coordinates every row has (coordinates,).
    """

    def __init__(self, whole: VelocityField, mask: Tensor) -> None:
        super().__init__(int(mask.sum()), whole.context_dim)
        self.whole = whole
        self.places = mask.nonzero().squeeze(-1).tolist()
        self._geometry = present_part(whole.geometry, mask)

    @property
    def geometry(self) -> Geometry:
        """The space of the present coordinates."""
        return self._geometry

    @property
    def resting(self) -> bool:
        """Whether the velocity is known to be zero."""
        return self.whole.resting

    def describe(self) -> str:
        """The whole field in words."""
        return self.whole.describe()

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity (*batch, dim) at times t () or (*batch,) and states x (*batch, dim)."""
        return self.bind(context).velocity(t, x)

    def bind(self, context: Tensor | None = None) -> BoundField:
        """The whole field for a context, seen from the present coordinates."""
        bound = self.whole.bind(context)

        def at(times: Tensor) -> list[FieldAt]:
            return [self._seen(moment) for moment in bound.at(times)]

        return BoundField(at, bound.closed_form, bound.tensors)

    def _seen(self, moment: FieldAt) -> FieldAt:
        both = moment.velocity_and_divergence

        def velocity(x: Tensor) -> Tensor:
            return moment.velocity(self._wide(x))[..., self.places]

        def velocity_and_divergence(x: Tensor) -> tuple[Tensor, Tensor]:
            assert both is not None, "the field has a closed form"
            v, divergence = both(self._wide(x))
            return v[..., self.places], divergence

        return FieldAt(velocity, None if both is None else velocity_and_divergence)

    def _wide(self, x: Tensor) -> Tensor:
        return widened(x, self.places, self.whole.dim)


class TransformOfPresent(Transform):
    """The present columns of a transform.

    Args:
        whole: the transform; it ignores the values of absent columns.
        mask: which coordinates every row has (coordinates,).
    """

    mask: Tensor

    def __init__(self, whole: Transform, mask: Tensor) -> None:
        columns = whole.column_mask(mask).nonzero().squeeze(-1).tolist()
        super().__init__(len(columns))
        self.whole, self.columns = whole, columns
        self.places = mask.nonzero().squeeze(-1).tolist()
        self.register_buffer("mask", mask)
        self._geometry = present_part(whole.geometry, mask)
        # The whole transform takes back what its base says of absent coordinates, which are at zero.
        self.of_absent = at_zero(whole.geometry) - at_zero(self._geometry)
        new = {column: k for k, column in enumerate(columns)}
        self.spheres = [(new[a], new[b]) for a, b in whole.spheres if a in new]
        self._turns = {new[k]: turn for k, turn in whole.turns.items() if k in new}

    @property
    def turns(self) -> dict[int, tuple[float, float]]:
        """The start and the end of a full turn, for each column on a circle or a sphere."""
        return self._turns

    @property
    def geometry(self) -> Geometry:
        """The space of the present coordinates."""
        return self._geometry

    @property
    def bounded(self) -> bool:
        """Whether some x have no y."""
        return self.whole.bounded

    def log_area(self, x: Tensor) -> Tensor:
        """Log of the area (*batch,) of one unit of the columns of x (*batch, dim)."""
        pairs = len(self.whole.spheres)
        lacking = (pairs - len(self.spheres)) / max(pairs, 1)
        # Absent points are at zero in `widened`.
        return self.whole.log_area(self._wide(x)) - lacking * self.whole.log_area(
            x.new_zeros(self.whole.dim)
        )

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Model coordinates y (*batch, coordinates) in float64, and the log-Jacobian."""
        y, ladj = self.whole(self._wide(x), context, self._mask(x))
        return y[..., self.places], ladj + self.of_absent

    def inverse(
        self, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Data x (*batch, dim), in the dtype of y."""
        wide = widened(y, self.places, self.whole.geometry.dim)
        return self.whole.inverse(wide, context, self._mask(y))[..., self.columns]

    def pushforward(
        self, v: Tensor, y: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """dx/dt (*batch, dim) for dy/dt = v at y (*batch, coordinates), in the dtype of v."""
        v, y = (widened(part, self.places, self.whole.geometry.dim) for part in (v, y))
        return self.whole.pushforward(v, y, context, self._mask(y))[..., self.columns]

    def _wide(self, x: Tensor) -> Tensor:
        return widened(x, self.columns, self.whole.dim)

    def _mask(self, rows: Tensor) -> Tensor:
        return self.mask.expand(*rows.shape[:-1], -1)


def widened(rows: Tensor, places: Sequence[int], width: int) -> Tensor:
    """Rows (*batch, columns) at some places of rows of zeros (*batch, width).

    >>> widened(torch.tensor([1.0, 2.0]), [0, 2], 4)
    tensor([1., 0., 2., 0.])
    """
    at = torch.tensor(places, device=rows.device)
    wide = rows.new_zeros(*rows.shape[:-1], width)
    return wide.index_copy(-1, at, rows)


def at_zero(geometry: Geometry) -> float:
    """The log-density of the plain base where all coordinates are zero.

    >>> round(at_zero(Geometry(2)), 4)  # of two standard normals, −log 2π
    -1.8379
    """
    return plain_base(geometry).log_prob(torch.zeros(geometry.dim, dtype=torch.float64)).item()


def present_part(geometry: Geometry, mask: Tensor) -> Geometry:
    """The space of the coordinates in a mask (coordinates,).

    >>> present_part(Geometry(1, angles=2), torch.tensor([True, False, True]))
    Geometry(reals=1, angles=1, spheres=0)
    """
    sizes = (geometry.reals, geometry.angles, 3 * geometry.spheres)
    reals, angles, vectors = (int(part.sum()) for part in mask.split(sizes))
    return Geometry(reals, angles, vectors // 3)
