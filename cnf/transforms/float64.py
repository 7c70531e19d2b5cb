"""Modules whose numbers stay float64, whatever the flow around them computes in."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class Float64Module(nn.Module):
    """A module that moves to another device with the rest, and keeps the dtype of its numbers.

    Example:
        >>> import torch
        >>> module = Float64Module()
        >>> module.register_buffer("shift", torch.zeros(2, dtype=torch.float64))
        >>> module.float().shift.dtype
        torch.float64
    """

    def _apply(
        self,
        fn: Callable[[Tensor], Tensor],
        recurse: bool = True,  # noqa: FBT001, FBT002 - torch's signature
    ) -> Float64Module:
        def moved(tensor: Tensor) -> Tensor:
            found = fn(tensor)  # without numbers, where a module leaves the meta device
            return found if found.dtype == tensor.dtype else tensor.to(found.device)

        return super()._apply(moved, recurse)
