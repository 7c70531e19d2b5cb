"""Batches of irregular series with unequal times and lengths and missing channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Series:
    """A batch of series, each with its own times.

    Attributes:
        times: (batch, length), in any order; a time without any observed channel is padding.
        values: (batch, length, channels), zero where not observed.
        mask: which values were observed, bool, (batch, length, channels).

    Raises:
        ValueError: for shapes that do not fit, or an observed value or its time that is not
            finite.

    Example:
        >>> nan = torch.nan
        >>> short = torch.tensor([0.1]), torch.tensor([[1.0, nan]])
        >>> long = torch.tensor([0.0, 0.7]), torch.tensor([[1.0, 2.0], [nan, 3.0]])
        >>> Series.of([short, long]).mask.sum((1, 2))
        tensor([1, 3])
    """

    times: Tensor
    values: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        shapes = [tuple(tensor.shape) for tensor in (self.times, self.values, self.mask)]
        if self.values.dim() != 3 or shapes[2] != shapes[1] or shapes[0] != shapes[1][:2]:
            raise ValueError(
                "series: expected times (batch, length), values and mask (batch, length, channels);"
                f" got {shapes[0]}, {shapes[1]}, {shapes[2]}"
            )
        bad = (self.mask & ~self.values.isfinite()).any(-1) | (self.seen & ~self.times.isfinite())
        if bad.any():
            row, place = bad.nonzero()[0].tolist()
            raise ValueError(
                f"series {row}, place {place}: an observed value or its time is not finite"
            )

    @classmethod
    def of(cls, series: Sequence[tuple[Tensor, Tensor]]) -> Series:
        """The batch of pairs of times (length,) and values (length, channels), NaN where missing.

        Raises ValueError for no series, or a pair whose shapes do not fit each other or the first
        pair.
        """
        if not series:
            raise ValueError("series: expected at least one pair of times and values; got none")
        channels = series[0][1].shape[-1]
        for row, (times, values) in enumerate(series):
            if times.dim() != 1 or values.shape != (len(times), channels):
                raise ValueError(
                    f"series {row}: expected times (length,) and values (length, {channels});"
                    f" got {tuple(times.shape)}, {tuple(values.shape)}"
                )
        times = pad_sequence([times for times, _ in series], batch_first=True)
        values = pad_sequence([v for _, v in series], batch_first=True, padding_value=torch.nan)
        return cls(times, values.nan_to_num(0.0), ~values.isnan())

    def __len__(self) -> int:
        return len(self.times)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.values.shape[-1]

    @property
    def seen(self) -> Tensor:
        """Whether at least one channel was observed, (batch, length)."""
        return self.mask.any(-1)

    def take(self, rows: Tensor | slice) -> Series:
        """The series of these rows."""
        return Series(self.times[rows], self.values[rows], self.mask[rows])

    def hide(self, mask: Tensor) -> Series:
        """The series without the values where `mask` (batch, length, channels) is true."""
        kept = self.mask & ~mask
        return Series(self.times, self.values.masked_fill(~kept, 0.0), kept)
