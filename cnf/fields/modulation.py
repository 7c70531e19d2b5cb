"""What time and context do to two hidden layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Modulation:
    """What time and context do to the layers, each part (…, width).

    Attributes:
        shift1: c₁, of the first layer.
        shift2: c₂, of the second layer.
        offset: b, of the velocity.
        gate1: g₁; None for one.
        gate2: g₂; None for one.
        skip: s, the velocity's part proportional to x; None for zero.
    """

    shift1: Tensor
    shift2: Tensor
    offset: Tensor
    gate1: Tensor | None = None
    gate2: Tensor | None = None
    skip: Tensor | None = None

    def take(self, places: Tensor) -> Modulation:
        """The modulation at `places` (rows,)."""
        return self._of_parts(lambda part: part[places])

    def of_rows(self, which: int, group: Tensor) -> Modulation:
        """That of rows (rows, width) at one of several times (n, groups, width); a part that is the
        same for all (width,) stays."""
        return self._of_parts(lambda part: part[which][group] if part.dim() > 1 else part)

    def _of_parts(self, change: Callable[[Tensor], Tensor]) -> Modulation:
        parts = {name: part for name, part in vars(self).items() if part is not None}
        return replace(self, **{name: change(part) for name, part in parts.items()})
