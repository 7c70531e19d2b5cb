"""One number of a comparison."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """One number that says how far two tables are apart.

    Attributes:
        name: of the measure.
        value: the measured value; NaN if it could not be measured.
        ideal: the value for another sample of the real table.
        detail: how it was measured, in words.
    """

    name: str
    value: float
    ideal: float
    detail: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The same for json, which has no NaN."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }
