"""The five standard tabular benchmarks, preprocessed as by Papamakarios et al. (2017).

The user provides the files, in the layout of that article: `power/data.npy`,
`gas/ethylene_CO.parquet`, `hepmass/1000_train.csv` and `hepmass/1000_test.csv`,
`miniboone/data.npy`, `BSDS300/BSDS300.hdf5` under one root. Published test log-likelihoods are in
nats of these standardized columns. Here, POWER's shuffle and noise come from a torch generator, so
its rows are split and dithered with the same distribution, but not bit-identically.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
import torch
from torch import Tensor


class Split(NamedTuple):
    """The three parts of a benchmark, each (rows, dim) in float32."""

    train: Tensor
    valid: Tensor
    test: Tensor


def load_benchmark(
    name: str, root: str | Path, *, generator: torch.Generator | None = None
) -> Split:
    """Load one of `BENCHMARKS` from the folder `root`, preprocessed and standardized.

    The generator shuffles and dithers POWER only. Without one, the seed is 42, because a split
    that changed between calls would mix test rows into training. ValueError for an unknown name or
    a file of another layout, FileNotFoundError for a missing file.

    >>> load_benchmark("POWER", "nowhere")
    Traceback (most recent call last):
    FileNotFoundError: POWER: expected the file nowhere/power/data.npy
    """
    if name not in BENCHMARKS:
        raise ValueError(
            f"no benchmark is called {name!r}: expected one of {', '.join(BENCHMARKS)}"
        )
    generator = torch.Generator().manual_seed(42) if generator is None else generator
    parts = BENCHMARKS[name](Path(root), generator)
    return Split(*(part.to(torch.float32) for part in parts))


def _power(root: Path, generator: torch.Generator) -> Split:
    """Dither each measured column by its resolution; drop reactive power (1) and intensity (3)."""
    rows = _array("POWER", root / "power/data.npy", columns=8)
    rows = rows[torch.randperm(len(rows), generator=generator)][:, [0, 2, 4, 5, 6, 7]]
    resolution = torch.tensor([0.001, 0.01, 1, 1, 1, 0], dtype=torch.float64)
    noise = torch.rand(rows.shape, generator=generator, dtype=torch.float64)
    split = _split(rows + resolution * noise)
    return _standardize(split, torch.cat((split.train, split.valid)), correction=0)


def _gas(root: Path, generator: torch.Generator) -> Split:
    """Drop time and targets, then columns until no pair correlates above 0.98.

    As in the article, all rows set the scale, test rows included.
    """
    path = root / "gas/ethylene_CO.parquet"
    pickle = path.with_suffix(".pickle")
    if pickle.exists() and not path.exists():
        raise FileNotFoundError(
            f"GAS: expected the file {path}. Pickles are not read: if you trust this one, convert it by "
            f"pandas.read_pickle({str(pickle)!r}).to_parquet({str(path)!r})"
        )
    table = pd.read_parquet(_present("GAS", path))
    others = ["Time", "Meth", "Eth"]
    _require("GAS", path, others, table)
    rows = _tensor(table.drop(columns=others))
    rows = rows[:, _uncorrelated(rows)]
    return _standardize(_split(rows), rows, correction=1)


def _hepmass(root: Path, generator: torch.Generator) -> Split:
    """Keep the signal class and the features whose smallest value occurs at most five times in
    training."""
    paths = [root / f"hepmass/1000_{part}.csv" for part in ("train", "test")]
    train, test = (_signal(path) for path in paths)
    _require("HEPMASS", paths[1], train, test)
    # The test file has one column more at its end, so its columns are chosen by name.
    kept = [column for column in train if (train[column] == train[column].min()).sum() <= 5]
    rows = _tensor(train[kept])
    return _standardize(Split(*_hold_out_tenth(rows), _tensor(test[kept])), rows, correction=1)


def _miniboone(root: Path, generator: torch.Generator) -> Split:
    """The file holds the 43 chosen columns already."""
    split = _split(_array("MINIBOONE", root / "miniboone/data.npy", columns=43))
    return _standardize(split, torch.cat((split.train, split.valid)), correction=0)


def _bsds300(root: Path, generator: torch.Generator) -> Split:
    """The file is split and scaled already."""
    path = _present("BSDS300", root / "BSDS300/BSDS300.hdf5")
    with h5py.File(path, "r") as file:
        parts = ["train", "validation", "test"]
        _require("BSDS300", path, parts, file)
        return Split(*(torch.from_numpy(file[part][:]) for part in parts))


BENCHMARKS: dict[str, Callable[[Path, torch.Generator], Split]] = {
    "POWER": _power,
    "GAS": _gas,
    "HEPMASS": _hepmass,
    "MINIBOONE": _miniboone,
    "BSDS300": _bsds300,
}


def _present(name: str, path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{name}: expected the file {path}")
    return path


def _array(name: str, path: Path, columns: int) -> Tensor:
    rows = np.load(_present(name, path), allow_pickle=False)
    if rows.ndim != 2 or rows.shape[1] != columns:
        raise ValueError(
            f"{name}: expected {columns} columns in {path}, got an array of shape {rows.shape}"
        )
    return torch.from_numpy(rows.astype(np.float64))


def _require(name: str, path: Path, expected: Iterable[str], found: Iterable[str]) -> None:
    if missing := set(expected) - set(found):
        raise ValueError(
            f"{name}: expected {', '.join(sorted(missing))} in {path}, got {', '.join(found)}"
        )


def _tensor(table: pd.DataFrame) -> Tensor:
    return torch.tensor(table.to_numpy(np.float64))


def _signal(path: Path) -> pd.DataFrame:
    table = pd.read_csv(_present("HEPMASS", path), index_col=False)
    label = table.columns[0]
    return table[table[label] == 1].drop(columns=label)


def _uncorrelated(rows: Tensor) -> list[int]:
    """Drop the first column that correlates above 0.98 with another one that is left, until none
    does."""
    close = torch.corrcoef(rows.T) > 0.98
    kept = list(range(rows.shape[1]))
    while crowded := [column for column in kept if close[column, kept].sum() > 1]:
        kept.remove(crowded[0])
    return kept


def _split(rows: Tensor) -> Split:
    """Hold out the last tenth for testing, and the last tenth of what is left for validation."""
    rest, test = _hold_out_tenth(rows)
    return Split(*_hold_out_tenth(rest), test)


def _hold_out_tenth(rows: Tensor) -> tuple[Tensor, Tensor]:
    kept = len(rows) - len(rows) // 10
    return rows[:kept], rows[kept:]


def _standardize(split: Split, reference: Tensor, *, correction: int) -> Split:
    mean, scale = reference.mean(0), reference.std(0, correction=correction)
    return Split(*((part - mean) / scale for part in split))
