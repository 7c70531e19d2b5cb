"""Flows over whichever columns a row has."""

from __future__ import annotations

from collections.abc import Sequence

from cnf.fields.masked import MaskedField
from cnf.flows import CNF, NormalBase
from cnf.tables.columns import Column
from cnf.transforms import Affine, Chain, Transform
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
    """A flow over the columns that a mask says are present, conditioned on features.

    Args:
        dim: number of columns.
        features: number of columns of the context behind those of the mask.
        hidden: widths of the field.
        frequency: scale of the frequencies that the field starts with.
        preprocess: map from the units of the data; None for data in model coordinates.
    """
    context_dim = dim + features
    flow = CNF(
        dim,
        context_dim=context_dim,
        field=MaskedField(dim, hidden, context_dim=context_dim, frequency=frequency),
        base=NormalBase(dim),
        preprocess=Affine.identity(dim) if preprocess is None else preprocess,
    )
    flow.automatic = {"solver"}
    return flow


def gaussianizing_transform(columns: Sequence[Column], features: int) -> Chain:
    """From numbers in the units of the table to nearly Gaussian coordinates: each column by itself,
    then all of them given the features."""
    marginals = MarginalTransform([column.support for column in columns])
    return Chain(marginals, Whitening(len(columns), features))


def gaussianizing_maps(flow: CNF) -> tuple[MarginalTransform, Whitening]:
    """The two maps of the `gaussianizing_transform` that a flow has."""
    assert isinstance(flow.preprocess, Chain), "the flow has a gaussianizing transform"
    marginals, whitening = flow.preprocess.maps
    assert isinstance(marginals, MarginalTransform) and isinstance(whitening, Whitening)
    return marginals, whitening
