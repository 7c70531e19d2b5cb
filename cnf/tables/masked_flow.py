"""Flows over a different set of columns in each row."""

from __future__ import annotations

from collections.abc import Sequence

from cnf.fields.masked import MaskedField
from cnf.flows import CNF
from cnf.flows.product_base import plain_base
from cnf.tables.columns import Column
from cnf.tables.spaces import charts_of
from cnf.transforms import Affine, Chain, Charts, Transform
from cnf.transforms.marginals import MarginalTransform
from cnf.transforms.whitening import Whitening


def masked_flow(
    dim: int,
    features: int,
    hidden: tuple[int, int],
    *,
    frequency: float = 1.0,
    preprocess: Transform | None = None,
) -> CNF:
    """A flow over the columns that a mask marks as present, conditioned on features.

    Args:
        dim: number of columns.
        features: number of context columns after those of the mask.
        hidden: widths of the field.
        frequency: scale of the initial frequencies of the field.
        preprocess: transform from the units of the data; None for data in model coordinates.
    """
    preprocess = Affine.identity(dim) if preprocess is None else preprocess
    space = preprocess.geometry
    context_dim = space.dim + features
    field = MaskedField(
        space.dim, hidden,
        context_dim=context_dim, frequency=frequency, angles=space.angles, spheres=space.spheres,
    )  # fmt: skip
    base = plain_base(space)
    flow = CNF(dim, context_dim=context_dim, field=field, base=base, preprocess=preprocess)
    flow.automatic = {"solver"}
    return flow


def gaussianizing_transform(columns: Sequence[Column], features: int) -> Transform:
    """A transform from numbers in the units of the table to nearly Gaussian coordinates: first each column
    separately, then all of them given the features; angles and spheres are unchanged."""
    charts = charts_of(columns)
    real = columns if charts is None else [columns[place] for place in charts.reals]
    marginals = MarginalTransform([column.support for column in real])
    chain = Chain(marginals, Whitening(len(real), features))
    return chain if charts is None else charts.with_rest(chain)


def gaussianizing_maps(flow: CNF) -> tuple[MarginalTransform, Whitening]:
    """The two parts of a flow's `gaussianizing_transform`."""
    preprocess = flow.preprocess
    chain = preprocess.rest if isinstance(preprocess, Charts) else preprocess
    assert isinstance(chain, Chain), "the flow has a gaussianizing transform"
    marginals, whitening = chain.maps
    assert isinstance(marginals, MarginalTransform) and isinstance(whitening, Whitening)
    return marginals, whitening
