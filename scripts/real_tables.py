"""Real tables from the folder that CNF_SHARED_DATA names.

Each has a data.npz with X, columns, idx_train, idx_val and idx_test, or a table without a split under another
name, which is then permuted and split here.
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

# Where the table is not under X and has no split.
UNSPLIT = {"miniboone_partial": "signal_subset"}
MOST_ROWS = 60_000


@dataclass(frozen=True)
class Table:
    """Rows in units standardised by the training part."""

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
    x = torch.as_tensor(data[UNSPLIT.get(name, "X")], dtype=torch.float64)
    if name in COLUMNS:
        names = data["columns"].tolist()
        x = x[:, [names.index(column) for column in COLUMNS[name]]]
    if name in UNSPLIT:
        parts = split(len(x))
    else:
        parts = [torch.as_tensor(data[f"idx_{part}"]) for part in ("train", "val", "test")]
    train = x[parts[0]]
    x = (x - train.mean(0)) / train.std(0, correction=0)
    return Table(name, *(x[part] for part in parts))


def split(rows: int) -> list[Tensor]:
    """Places of the training, validation and test rows: 80, 10 and 10 per cent of a permutation."""
    order = torch.as_tensor(np.random.default_rng(1).permutation(rows)[:MOST_ROWS])
    return list(order.tensor_split((len(order) * 8 // 10, len(order) * 9 // 10)))
