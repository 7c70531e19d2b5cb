"""The result of one check."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Kind = Literal["correctness", "fit", "cost"]
Sense = Literal["at most", "at least"]


@dataclass(frozen=True)
class CheckResult:
    """A claim, the number found, and whether the claim holds.

    Attributes:
        name: of the claim, in a word or two.
        claim: the sentence that is true if the check passes.
        value: the number found.
        limit: what `value` is held against.
        passed: whether the claim holds; NaN never passes. None if the measurement is too coarse to
            decide.
        sense: the side of the limit that passes.
        kind: "correctness", "fit" or "cost".
        unit: of value and limit; empty for pure numbers.
        detail: how it was measured, in a few words.
    """

    name: str
    claim: str
    value: float
    limit: float
    passed: bool | None
    sense: Sense = "at most"
    kind: Kind = "correctness"
    unit: str = ""
    detail: str = ""

    @classmethod
    def at_most(
        cls, name: str, claim: str, value: float, limit: float, **more: Any
    ) -> CheckResult:
        """The claim that `value` is no larger than `limit`.

        >>> CheckResult.at_most("mass", "the density integrates to one", 0.002, 0.01).passed
        True
        >>> CheckResult.at_most("mass", "the density integrates to one", float("nan"), 0.01).passed
        False
        """
        return cls(name, claim, value, limit, math.isfinite(value) and value <= limit, **more)

    @classmethod
    def at_least(
        cls, name: str, claim: str, value: float, limit: float, **more: Any
    ) -> CheckResult:
        """The claim that `value` is no smaller than `limit`."""
        holds = math.isfinite(value) and value >= limit
        return cls(name, claim, value, limit, holds, sense="at least", **more)

    def undecided(self) -> CheckResult:
        """The claim with its numbers and without a verdict.

        >>> CheckResult.at_most("mass", "the density integrates to one", 0.2, 0.5).undecided().passed is None
        True
        """
        return replace(self, passed=None)

    def as_dict(self) -> dict[str, Any]:
        """The claim as data for JSON."""
        return asdict(self)
