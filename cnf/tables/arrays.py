"""Tables as numpy arrays: npy without names, npz with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.npyio import NpzFile

from cnf.tables.formats import (
    Append,
    ReadOptions,
    TableError,
    block,
    damage_reported,
    listed,
    row_labels,
    shown,
)


def read_npy(path: Path, options: ReadOptions) -> Iterator[pd.DataFrame]:
    """The selected columns of a rows × columns array, named x0, x1, ..., labeled by row; parts are read
    as needed."""
    # numpy's parser raises many kinds of errors for a damaged header.
    with damage_reported(path, "npy of numbers", Exception):
        array = np.lib.format.open_memmap(path, mode="r")
    yield from _frames(array, _numbered(array), path, options)


def read_npz(path: Path, options: ReadOptions) -> Iterator[pd.DataFrame]:
    """The selected columns of one array, named by the array `columns` if there is one, labeled by row.

    The array is the one in the options, otherwise `X`, otherwise the only one of rows × columns.
    """
    kind = "npz of numbers, names as dtype=str"
    with damage_reported(path, kind, Exception), path.open("rb") as file, NpzFile(file) as archive:
        name = _table_in(archive, path, options.array)
        arrays = {part: archive[part] for part in (name, "columns") if part in archive.files}
    array = arrays[name]
    names = _names(arrays["columns"], path) if "columns" in arrays else _numbered(array)
    yield from _frames(array, names, path, options)


def _table_in(archive: NpzFile, path: Path, asked: str | None) -> str:
    """The name of the array that holds the table."""
    held = [name for name in archive.files if name != "columns"]
    name = asked or ("X" if "X" in held else held[0] if len(held) == 1 else None)
    if name not in held:
        wanted = f"an array {shown(asked)}" if asked else "an array X"
        raise TableError(
            f"{path}: expected {wanted}, found {listed(archive.files) or 'none'};"
            " choose one with --array"
        )
    return str(name)


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
    array: np.ndarray, names: list[str], path: Path, options: ReadOptions
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
    chosen = options.choose(names)
    wanted = [names.index(name) for name in chosen]
    for start in range(0, max(rows, 1), options.chunk_rows):
        chunk = array[start : start + options.chunk_rows]
        labels = row_labels(start, len(chunk))
        if all(name in options.kept for name in chosen):
            yield pd.DataFrame(chunk[:, wanted], columns=chosen, index=labels)
        else:
            yield block(chunk[:, wanted], chosen, labels)


@contextmanager
def write_npy(path: Path) -> Iterator[Append]:
    """Collect the frames until the end, then save one array; the names are lost."""
    frames: list[pd.DataFrame] = []
    yield frames.append
    np.save(path, _array(frames, path), allow_pickle=False)


@contextmanager
def write_npz(path: Path) -> Iterator[Append]:
    """Collect the frames until the end, then save the array `X` and its names, `columns`."""
    frames: list[pd.DataFrame] = []
    yield frames.append
    np.savez(path, X=_array(frames, path), columns=np.array(frames[0].columns, dtype=str))


def _array(frames: list[pd.DataFrame], path: Path) -> np.ndarray:
    array = pd.concat(frames).to_numpy()
    if array.dtype.kind not in "biuf":
        raise TableError(
            f"{path.name}: an array can only have numbers, found {array.dtype}; write csv or parquet"
        )
    return array
