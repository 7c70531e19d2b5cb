"""Missing cells drawn given the others: one network pair for every pattern of what is known."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnf.fields.masked import MaskedField
from cnf.flows import CNF, ErrorModel, NormalBase
from cnf.ode import Grid
from cnf.tables.discrete import DiscreteModel
from cnf.transforms import Affine

# Draws need no error bar: a fixed grid does.
STEPS, TOLERANCE = 12, 0.1


class Known(NamedTuple):
    """What is known of rows: states, −1 where not (rows, columns), and which those are; the
    numbers known (rows, numeric) in nearly Gaussian coordinates, zero elsewhere, and which those
    are."""

    states: Tensor
    seen: Tensor
    y: Tensor
    given: Tensor


class Imputer(nn.Module):
    """p(unknown cells | known cells, context), for any set of known cells.

    As the joint density, states first and numbers after them: an autoregressive network for the
    states, a flow for the numbers. Both read the known numbers beside their flags, and are fitted
    with known sets drawn at random (amortized conditioning). The flow starts from the conditional
    Gaussian of `Whitening`, so that for Gaussian columns the draws are exact from the start;
    beyond, they are as good as the fit.

    Args:
        sizes: how many states each column has.
        dim: number of numeric columns.
        context: number of columns of context features.
        features: number of columns of the features of states and context.
        hidden: widths of the flow's field.
    """

    def __init__(
        self, sizes: list[int], dim: int, context: int, features: int, hidden: tuple[int, int]
    ) -> None:
        super().__init__()
        self.discrete = DiscreteModel(sizes, context + 2 * dim)
        self.flow = _flow(dim, features + 2 * dim, hidden) if dim else None

    def extra(self, known: Known, context: Tensor) -> Tensor:
        """What the network of the states reads beside them."""
        return torch.cat((context, known.y, known.given.to(known.y.dtype)), 1)

    def conditions(self, free: Tensor, features: Tensor, known: Known) -> Tensor:
        """The context of the flow over the free numbers (rows, numeric), from
        `TableDensity.features`."""
        return torch.cat(
            (free.to(known.y.dtype), features, known.y, known.given.to(known.y.dtype)), 1
        )

    def draw_states(
        self,
        known: Known,
        context: Tensor,
        barred: list[int | None],
        generator: torch.Generator | None,
    ) -> Tensor:
        """All states (rows, columns), the unknown ones drawn; `barred` says which are not, by
        column."""
        extra = self.extra(known, context).to(self.discrete.network[0].weight.dtype)
        return self.discrete.sample(
            known.states, extra, known.seen, generator=generator, barred=barred
        )


def _flow(dim: int, features: int, hidden: tuple[int, int]) -> CNF:
    flow = CNF(
        dim,
        context_dim=dim + features,
        field=MaskedField(dim, hidden, context_dim=dim + features, frequency=1.0),
        base=NormalBase(dim),
        preprocess=Affine.identity(dim),
        solver=Grid.uniform(STEPS),
    )
    flow.automatic = set()
    flow.error_model = ErrorModel(TOLERANCE)
    return flow
