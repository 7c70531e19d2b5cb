"""Tables as numpy arrays: npy without names, npz with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.npyio import NpzFile

from cnf.tables.formats import Append, Choose, Kept, TableError, block, damage_reported, row_labels


def read_npy(
    path: Path, choose: Choose, chunk_rows: int, kept: Kept = ()
) -> Iterator[pd.DataFrame]:
    """The chosen columns of a rows × columns array, called x0, x1, ..., labeled by row; read as
    needed."""
    # numpy's parser raises whatever it stumbles over in a damaged header.
    with damage_reported(path, "npy of numbers", Exception):
        array = np.lib.format.open_memmap(path, mode="r")
    yield from _frames(array, _numbered(array), path, choose, chunk_rows)


def read_npz(
    path: Path, choose: Choose, chunk_rows: int, kept: Kept = ()
) -> Iterator[pd.DataFrame]:
    """The chosen columns of the array `X`, named by the array `columns` if there is one, labeled
    by row."""
    kind = "npz of numbers, names as dtype=str"
    with damage_reported(path, kind, Exception), path.open("rb") as file, NpzFile(file) as archive:
        arrays = {name: archive[name] for name in ("X", "columns") if name in archive.files}
        held = ", ".join(archive.files) or "none"
    if "X" not in arrays:
        raise TableError(
            f"{path}: expected an array X, found {held}; save the table under the name X"
        )
    array = arrays["X"]
    names = _names(arrays["columns"], path) if "columns" in arrays else _numbered(array)
    yield from _frames(array, names, path, choose, chunk_rows)


def _numbered(array: np.ndarray) -> list[str]:
    return [f"x{i}" for i in range(array.shape[-1] if array.ndim else 0)]


def _names(columns: np.ndarray, path: Path) -> list[str]:
    if columns.ndim != 1 or columns.dtype.kind != "U":
        raise TableError(
            f"{path}: expected a list of names in the array columns, found shape {columns.shape} "
            f"of type {columns.dtype}; save it as numpy.array(names, dtype=str)"
        )
    return columns.tolist()


def _frames(
    array: np.ndarray, names: list[str], path: Path, choose: Choose, chunk_rows: int
) -> Iterator[pd.DataFrame]:
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise TableError(
            f"{path}: expected numbers in two dimensions, rows × columns, "
            f"found shape {array.shape} of type {array.dtype}; reshape or convert the array"
        )
    rows, width = array.shape
    if len(names) != width:
        raise TableError(
            f"{path}: expected {width} names in the array columns, found {len(names)}; name every column"
        )
    chosen = choose(names)
    wanted = [names.index(name) for name in chosen]
    for start in range(0, max(rows, 1), chunk_rows):
        chunk = array[start : start + chunk_rows]
        yield block(chunk[:, wanted], chosen, row_labels(start, len(chunk)))


@contextmanager
def write_npy(path: Path) -> Iterator[Append]:
    """Holds the frames until the end, then saves one array; the names are lost."""
    frames: list[pd.DataFrame] = []
    yield frames.append
    np.save(path, _array(frames, path), allow_pickle=False)


@contextmanager
def write_npz(path: Path) -> Iterator[Append]:
    """Holds the frames until the end, then saves the array `X` and its names, `columns`."""
    frames: list[pd.DataFrame] = []
    yield frames.append
    np.savez(path, X=_array(frames, path), columns=np.array(frames[0].columns, dtype=str))


def _array(frames: list[pd.DataFrame], path: Path) -> np.ndarray:
    array = pd.concat(frames).to_numpy()
    if array.dtype.kind not in "biuf":
        raise TableError(
            f"{path.name}: an array holds numbers only, found {array.dtype}; write csv or parquet"
        )
    return array
