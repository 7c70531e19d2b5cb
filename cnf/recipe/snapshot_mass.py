"""What becomes of mass between snapshots: it stays as it is, or grows and shrinks on its way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

import cnf.recipe.defaults as defaults
from cnf.fields import LinearMotion
from cnf.flows import CNF, GrowingFlow, SnapshotFlow
from cnf.training.growth import GrowingLikelihood, GrowthMatching
from cnf.training.maximum_likelihood import MaximumLikelihood
from cnf.training.paths import SplinePath
from cnf.training.snapshots import SnapshotMatching
from cnf.transforms.affine import moments


class ConstantMass:
    """Mass stays as it is: what a flow does."""

    def around(self, flow: CNF, first: float, last: float) -> SnapshotFlow:
        """The motion of a flow without a context between two times."""
        return SnapshotFlow.around(flow, first, last)

    def motion(
        self, flow: CNF, shares: Sequence[float], rows: Sequence[Tensor]
    ) -> LinearMotion | None:
        """The motion of the Gaussians that have the moments of the snapshots, of which a flow learns
        the rest; None where there is none."""
        if not flow.geometry.flat:
            return None
        gaussians = [moments(flow.to_model_coordinates(part)[0], None) for part in rows]
        return LinearMotion.through(shares, gaussians)

    def matching(self, shares: tuple[float, ...], **chains: Any) -> SnapshotMatching:
        """Flow matching along chains of rows, at some shares of the span."""
        return SnapshotMatching(path=SplinePath(shares, "not-a-knot"), **chains)

    def likelihood(
        self, objective: MaximumLikelihood, shares: tuple[float, ...], counts: tuple[int, ...]
    ) -> MaximumLikelihood:
        """Maximum likelihood at all snapshots but the first."""
        return objective


@dataclass(frozen=True)
class GrowingMass(ConstantMass):
    """Mass grows and shrinks on its way.

    Attributes:
        masses: that of each snapshot, by its time.
    """

    masses: Mapping[float, float]

    @classmethod
    def of(cls, snapshots: Mapping[float, Any], growth: Any) -> GrowingMass:
        """As `cnf.fit_snapshots` takes it: True, for as much mass as rows, or the masses.

        Raises:
            ValueError: for masses that are not positive, or not those of the snapshots.
        """
        masses = (
            {time: len(rows) for time, rows in snapshots.items()} if growth is True else growth
        )
        if not isinstance(masses, Mapping):
            raise ValueError("growth: expected True, or a dict from time to mass")
        for time in dict.fromkeys([*snapshots, *masses]):
            mass = masses.get(time)
            if time not in snapshots or mass is None or not 0 < mass < math.inf:
                raise ValueError(
                    "growth: expected a positive mass at the time of each snapshot,"
                    f" {', '.join(f'{known:.12g}' for known in snapshots)};"
                    f" got {'none' if mass is None else f'{mass:g}'} at {time:.12g}"
                )
        return cls({time: masses[time] for time in snapshots})

    def around(self, flow: CNF, first: float, last: float) -> SnapshotFlow:
        """The motion of a flow without a context between two times, at rest in its growth."""
        return GrowingFlow.growing(flow, self.masses)

    def motion(
        self, flow: CNF, shares: Sequence[float], rows: Sequence[Tensor]
    ) -> LinearMotion | None:
        """None: where mass grows, moments do not tell how it moves."""
        return None

    def matching(self, shares: tuple[float, ...], **chains: Any) -> SnapshotMatching:
        """Flow matching along chains of rows that unbalanced optimal transport pairs."""
        return GrowthMatching(
            path=SplinePath(shares, "natural"), reach=defaults.SNAPSHOT_REACH,
            slope_weight=defaults.SNAPSHOT_SLOPES[0], **chains,
        )  # fmt: skip

    def likelihood(
        self, objective: MaximumLikelihood, shares: tuple[float, ...], counts: tuple[int, ...]
    ) -> MaximumLikelihood:
        """Extended maximum likelihood at all snapshots but the first."""
        return GrowingLikelihood(
            **vars(objective), times=shares[1:], slope_weight=defaults.SNAPSHOT_SLOPES[1],
            counts=counts,
        )  # fmt: skip
