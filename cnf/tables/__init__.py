"""Tables: files, typed columns, and densities of rows.

reading, writing, formats                          files, by their extensions
text, compression, parquet, arrays, frame_files    csv, parquet, npy and npz; Arrow, Stata, JSON, Excel
files, row_groups                                  folders and patterns; rows beyond memory
columns, column_types, inference, redundancy       the columns and their types
schema, cells, dataframes                          rows as numbers and discrete states, and back
features, quadrature                               states as features; masses of integer cells
conditioning, discrete, masked_flow, imputation    the parts of a `TableFlow`
model, numeric_view, metadata, loading, upgrades   `TableFlow`, and models from files
told                                               short descriptions of models

An error about a table is a `TableError`: one line with the file, the column, the line or row, what was
expected and what to do. Incomplete files are never left behind.
"""

from cnf.tables.column_types import NumericType
from cnf.tables.columns import Column, ColumnType, register_column_type
from cnf.tables.formats import TableError
from cnf.tables.loading import load, load_table_flow
from cnf.tables.metadata import FitMetadata
from cnf.tables.model import TableFlow
from cnf.tables.reading import (
    read_chunks,
    read_table,
    read_typed_chunks,
    read_typed_table,
)
from cnf.tables.schema import Schema
from cnf.tables.writing import TableWriter, table_writer, write_table

__all__ = [
    "Column",
    "ColumnType",
    "FitMetadata",
    "NumericType",
    "Schema",
    "TableError",
    "TableFlow",
    "TableWriter",
    "load",
    "load_table_flow",
    "read_chunks",
    "read_table",
    "read_typed_chunks",
    "read_typed_table",
    "register_column_type",
    "table_writer",
    "write_table",
]
