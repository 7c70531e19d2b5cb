"""The row groups of the Parquet files of a table, read in chunks."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import dataset

from cnf.tables.dataframes import from_arrow
from cnf.tables.files import SameColumns
from cnf.tables.formats import TableError, damage_reported, row_labels, shown
from cnf.tables.parquet import stored_names, write_parquet
from cnf.tables.reading import EVERY, as_typed, is_text_file, read_frames, table_files


@dataclass(frozen=True)
class RowGroup:
    """Rows of a Parquet file that are read together.

    Attributes:
        path: path of the file.
        start: index of its first row.
        rows: number of rows.
        fragment: pyarrow fragment that reads them.
    """

    path: Path
    start: int
    rows: int
    fragment: dataset.ParquetFileFragment

    def frames(self, columns: Sequence[str], chunk_rows: int) -> Iterator[pd.DataFrame]:
        """Typed columns in chunks, labeled by row."""
        start, schema = self.start, self.fragment.physical_schema
        # More readahead would keep more rows in memory.
        options = {"batch_size": chunk_rows, "batch_readahead": 1, "columns": list(columns)}
        with damage_reported(self.path, "parquet", pa.ArrowException, OSError):
            for batch in self.fragment.to_batches(schema=schema, **options):
                cells = {name: from_arrow(batch.column(name)) for name in columns}
                yield pd.DataFrame(cells).set_index(row_labels(start, batch.num_rows))
                start += batch.num_rows


class RowGroups:
    """The row groups of a file, a folder or a pattern.

    Files of other formats are first rewritten as Parquet, in a temporary folder, in which csv cells remain
    text.

    Args:
        data: path of a file or a folder, or a pattern, as in `read_typed_table`.
        columns: names; None for all.
        ignore: names that are left out.
        **options: missing and array, as in `read_typed_table`.

    Attributes:
        columns: names of the selected columns.
        groups: row groups that are not empty.
        rows: number of rows in all of them.

    Raises:
        TableError: for files whose columns differ in name or kind.
    """

    def __init__(
        self,
        data: str | os.PathLike[str],
        columns: Sequence[str] | None,
        ignore: Collection[str],
        **options: Any,
    ) -> None:
        files = table_files(data)
        self.text, chosen = is_text_file(files[0]), SameColumns(columns, ignore)
        known = files
        if files[0].suffix.lower() != ".parquet":
            self.folder = tempfile.mkdtemp(prefix="cnf-rows-")
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
            known = [self._rewritten(path, k, chosen, **options) for k, path in enumerate(files)]
        self.groups: list[RowGroup] = []
        kinds: dict[str, str] = {}
        for path, stored in zip(files, known):
            with damage_reported(path, "parquet", pa.ArrowException, OSError):
                (fragment,) = dataset.dataset(stored, format="parquet").get_fragments()
                schema = fragment.physical_schema
                self.columns = chosen.of(path, stored_names(schema))
                for name in self.columns:
                    _require_kind(schema.field(name), kinds, path, files[0])
                self._add(path, fragment)
        self.rows = sum(group.rows for group in self.groups)

    def typed(self, frame: pd.DataFrame, texts: Collection[str]) -> pd.DataFrame:
        """A frame with its text cells parsed."""
        return as_typed(frame, texts) if self.text else frame

    def _rewritten(self, path: Path, k: int, chosen: SameColumns, **options: Any) -> Path:
        target = Path(self.folder, f"{k}.parquet")
        with write_parquet(target) as append:
            for frame in read_frames([path], chosen, kept=EVERY, **options):
                append(frame.astype("string") if self.text else frame)
        return target

    def _add(self, path: Path, fragment: Any) -> None:
        start = 0
        for part in fragment.split_by_row_group():
            rows = part.row_groups[0].num_rows
            if rows:
                self.groups.append(RowGroup(path, start, rows, part))
            start += rows


def _require_kind(field: pa.Field, kinds: dict[str, str], path: Path, first: Path) -> None:
    """Raise an error for a column whose kind differs from that in earlier files."""
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    kind = "numbers" if any(is_kind(field.type) for is_kind in numbers) else str(field.type)
    if pa.types.is_null(field.type):
        return
    expected = kinds.setdefault(field.name, kind)
    if kind != expected:
        raise TableError(
            f"{path}: column {shown(field.name)}: expected {expected}, as in {first}; found {kind}:"
            " write the column as one type"
        )
