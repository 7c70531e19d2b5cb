"""Daily weather of Rhode Island (USHCN), as irregular windows with missing channels.

The table is in the folder CNF_SHARED_DATA: ushcn_rhode_island/data.csv.gz with the columns station, date,
PRCP, SNOW, SNWD, TMAX and TMIN, empty where missing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cnf.neural_ode import Series

FILE = Path(
    os.environ.get("CNF_SHARED_DATA", "../shared/data"), "ushcn_rhode_island", "data.csv.gz"
)
CHANNELS = ("PRCP", "SNOW", "SNWD", "TMAX", "TMIN")
AMOUNTS = ("PRCP", "SNOW", "SNWD")  # heavy tails: taken as log(1 + x)
PAST, AHEAD = 20, 10  # days that are read, and days to forecast
LAST_TRAINING = 1994
SMOOTHING = 15  # days over which the mean by day of year is taken


@dataclass(frozen=True)
class Windows:
    """Windows of 30 days: deviations from the mean by day of year, in standard deviations of the
    channel.

    Attributes:
        values: (windows, 30, channels), NaN where missing.
        normal: the mean by day of year, in the same units, likewise.
        kept: which values of the first 20 days may be read, likewise; half of them.
    """

    values: Tensor
    normal: Tensor
    kept: Tensor

    def observed(self) -> Series:
        """The first 20 days, at times from −20 to −1, as far as they may be read."""
        days = torch.arange(-PAST, 0.0).expand(len(self.values), -1)
        mask = self.kept[:, :PAST] & ~self.values[:, :PAST].isnan()
        return Series(days, self.values[:, :PAST].where(mask, torch.zeros(())), mask)

    def targets(self) -> Series:
        """The last 10 days, at times from 0 to 9."""
        days = torch.arange(0.0, AHEAD).expand(len(self.values), -1)
        values = self.values[:, PAST:]
        return Series(days, values.nan_to_num(0.0), ~values.isnan())

    def last_values(self) -> Tensor:
        """The forecast (windows, 10, channels) that every channel stays as it was last seen."""
        mask = self.observed().mask
        place = torch.arange(PAST)[:, None] * mask
        last = (self.values + self.normal)[:, :PAST].gather(1, place.amax(1, keepdim=True))
        forecast = last - self.normal[:, PAST:]
        return forecast.where(mask.any(1, keepdim=True), torch.zeros(()))


def load(file: Path = FILE) -> dict[str, pd.DataFrame]:
    """Every station's days without a gap in the calendar; columns are channels, amounts as log(1 +
    x)."""
    table = pd.read_csv(file, dtype={"station": str}, parse_dates=["date"])
    table[list(AMOUNTS)] = np.log1p(table[list(AMOUNTS)])
    return {
        station: days.set_index("date")[list(CHANNELS)].asfreq("D")
        for station, days in table.groupby("station")
    }


def mean_by_day(days: pd.DataFrame) -> pd.DataFrame:
    """The mean of the training years for every day of year, over 15 days around it, for every row
    of days."""
    known = days[days.index.year <= LAST_TRAINING]
    day = np.minimum(known.index.day_of_year, 365)
    sums = known.groupby(day).sum(min_count=0).reindex(range(1, 366), fill_value=0)
    counts = known.groupby(day).count().reindex(range(1, 366), fill_value=0)
    around = [
        np.roll(np.arange(365), shift) for shift in range(-(SMOOTHING // 2), SMOOTHING // 2 + 1)
    ]
    mean = sum(sums.to_numpy()[k] for k in around) / sum(counts.to_numpy()[k] for k in around)
    return pd.DataFrame(
        mean[np.minimum(days.index.day_of_year, 365) - 1], days.index, days.columns
    )


def split(stride: int, seed: int, file: Path = FILE) -> dict[str, Windows]:
    """Windows to learn from, of the years to 1994 (one starts every `stride` days), and of 1995 to
    2014."""
    step_times = load(file)
    normals = {station: mean_by_day(days) for station, days in step_times.items()}
    known = pd.concat([d - normals[s] for s, d in step_times.items()])
    scale = known[known.index.year <= LAST_TRAINING].std().to_numpy()
    years = {
        "train": (0, LAST_TRAINING, stride),
        "test": (LAST_TRAINING + 1, 9999, AHEAD),
    }
    found = {}
    for part, (first, last, every) in years.items():
        cut = []
        for station, days in step_times.items():
            inside = (days.index.year >= first) & (days.index.year <= last)
            pair = np.stack(
                [(days - normals[station])[inside] / scale, normals[station][inside] / scale]
            )
            starts = np.arange(0, max(pair.shape[1] - PAST - AHEAD + 1, 0), every)
            cut.append(pair[:, starts[:, None] + np.arange(PAST + AHEAD)])
        values, normal = torch.tensor(np.concatenate(cut, 1), dtype=torch.float32)
        told = (~values[:, PAST:].isnan()).any(-1).any(-1)  # something to forecast
        values, normal = values[told], normal[told]
        kept = torch.rand(values.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
        found[part] = Windows(values, normal, kept)
    return found
