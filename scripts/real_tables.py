"""Real tables from the folder named by CNF_SHARED_DATA, prepared for density estimation.

Each has a data.npz with X, columns and step, the grid to which its columns were rounded (0 if they were
not). Rows are permuted, and cells are dequantized uniformly over their grid step, since a rounded column
has no density. Rows are then split 80 : 10 : 10, and standardized by the training part.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(os.environ.get("CNF_SHARED_DATA", "../shared/data"))
# Where only some of the columns have a density: the others have atoms.
COLUMNS = {"power_hourly": ("Global_active_power", "Global_reactive_power", "Voltage", "hour")}

# Where the table is not under X and continuous.
OTHER_NAMES = {"miniboone_partial": "signal_subset"}
MOST_ROWS = 60_000


@dataclass(frozen=True)
class Table:
    """Rows in units standardized by the training part."""

    name: str
    train: Tensor
    valid: Tensor
    test: Tensor


def there(name: str, folder: Path = FOLDER) -> bool:
    """Whether the folder has this table."""
    return (folder / name / "data.npz").is_file()


def load(name: str, folder: Path = FOLDER) -> Table:
    """The parts of a table."""
    data = np.load(folder / name / "data.npz", allow_pickle=False)
    x = data[OTHER_NAMES.get(name, "X")].astype(np.float64)
    step = data["step"] if "step" in data.files else np.zeros(x.shape[1])
    if name in COLUMNS:
        names = data["columns"].tolist()
        kept = [names.index(column) for column in COLUMNS[name]]
        x, step = x[:, kept], step[kept]
    x = x[np.random.default_rng(1).permutation(len(x))[:MOST_ROWS]]
    x = torch.as_tensor(x + np.random.default_rng(0).uniform(size=x.shape) * step)
    train, valid, test = x.tensor_split((len(x) * 8 // 10, len(x) * 9 // 10))
    mean, deviation = train.mean(0), train.std(0, correction=0)
    return Table(name, *((part - mean) / deviation for part in (train, valid, test)))
