"""One conditional flow for every choice of free and given columns."""

from __future__ import annotations

from typing import Any

from torch import nn

from cnf.fields.masked import MaskedField
from cnf.flows.bases import NormalBase
from cnf.flows.flow import CNF
from cnf.flows.questions.coordinates import Coordinates
from cnf.flows.serialization import describe
from cnf.registry import described
from cnf.transforms import Affine


class SubsetFlow(nn.Module):
    """p(free columns | given columns, features), each column free, given or absent.

    The coordinates of a `ConditionalMixture` are nearly standard normal for every choice, and one
    flow with a `MaskedField`, which reads the choice and the given values, models the rest. Every
    choice has a normalized density. Densities of different choices agree only as well as the flow
    was trained.

    Args:
        coordinates: of the flow.
        hidden: widths of the flow's field.

    Example:
        >>> import torch
        >>> from cnf.flows.questions.coordinates import Coordinates
        >>> from cnf.transforms import MarginalTransform
        >>> from cnf.transforms.conditional import ConditionalMixture
        >>> mixture = ConditionalMixture(torch.ones(1), torch.zeros(1, 2), torch.eye(2)[None])
        >>> coordinates = Coordinates(MarginalTransform([(None, None)] * 2), mixture)
        >>> SubsetFlow(coordinates, hidden=(8, 8)).flow.context_dim
        6
    """

    def __init__(self, coordinates: Coordinates, *, hidden: tuple[int, int]) -> None:
        super().__init__()
        self.marginals, self.mixture = coordinates.marginals, coordinates.mixture
        dim = self.mixture.dim
        context_dim = 3 * dim + self.mixture.features
        self.flow = CNF(
            dim,
            context_dim=context_dim,
            field=MaskedField(dim, hidden, context_dim=context_dim, frequency=1.0),
            base=NormalBase(dim),
            preprocess=Affine.identity(dim),
        )
        self.flow.automatic = {"solver"}

    @property
    def coordinates(self) -> Coordinates:
        """The map from numbers to the coordinates of the flow and back."""
        return Coordinates(self.marginals, self.mixture)

    def describe(self) -> dict[str, Any]:
        """Its configuration, ready for JSON."""
        return {
            "marginals": described(self.marginals),
            "mixture": described(self.mixture),
            "flow": describe(self.flow),
        }
