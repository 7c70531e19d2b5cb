"""Mass between snapshots: it is constant, or it grows and shrinks along the motion."""

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
    """Mass is constant, as in any flow."""

    def around(self, flow: CNF, first: float, last: float) -> SnapshotFlow:
        """The motion of a flow without a context between two times."""
        return SnapshotFlow.around(flow, first, last)

    def motion(
        self, flow: CNF, shares: Sequence[float], rows: Sequence[Tensor]
    ) -> LinearMotion | None:
        """The motion of Gaussians with the moments of the snapshots, to which the flow learns a
        correction; None in a space that is not flat."""
        if not flow.geometry.flat:
            return None
        gaussians = [moments(flow.to_model_coordinates(part)[0], None) for part in rows]
        return LinearMotion.through(shares, gaussians)

    def matching(self, shares: tuple[float, ...], **chains: Any) -> SnapshotMatching:
        """Flow matching along chains of rows, with the snapshots at given fractions of the span."""
        return SnapshotMatching(path=SplinePath(shares, "not-a-knot"), **chains)

    def likelihood(
        self, objective: MaximumLikelihood, shares: tuple[float, ...], counts: tuple[int, ...]
    ) -> MaximumLikelihood:
        """Maximum likelihood at all snapshots but the first."""
        return objective


@dataclass(frozen=True)
class GrowingMass(ConstantMass):
    """Mass grows and shrinks along the motion.

    Attributes:
        masses: mass of each snapshot, by its time.
    """

    masses: Mapping[float, float]

    @classmethod
    def of(cls, snapshots: Mapping[float, Any], growth: Any) -> GrowingMass:
        """Masses from the argument of `cnf.fit_snapshots`: True for mass proportional to the rows, or
        the masses.

        Raises:
            ValueError: for masses that are not positive, or times other than those of the snapshots.
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
        """The motion of a flow without a context between two times, with zero growth."""
        return GrowingFlow.growing(flow, self.masses)

    def motion(
        self, flow: CNF, shares: Sequence[float], rows: Sequence[Tensor]
    ) -> LinearMotion | None:
        """None: with growth, the moments of snapshots do not determine the motion."""
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
