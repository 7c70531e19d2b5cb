"""Tables: files, typed columns, and the density of a row of them.

    reading, writing, text, parquet, arrays, formats    csv, csv.gz, parquet, npy and npz files
    columns, inference, dependence, schema              what the columns are
    series, encoding                                    cells as numbers and symbols, and back
    marginals, whitening, quadrature, features          from the units of the table to those of a flow
    symbols, model, loading                             p(symbols), `TableFlow`, models from files

What is wrong with a table is a `TableError`: one line with the file, the column, the line or row,
what was expected and what to do. Files are written whole or not at all.
"""

from cnf.tables.columns import Column
from cnf.tables.formats import TableError
from cnf.tables.loading import load
from cnf.tables.model import TableFlow
from cnf.tables.reading import (
    read_chunks,
    read_table,
    read_typed_chunks,
    read_typed_table,
    require_fittable,
)
from cnf.tables.schema import Schema
from cnf.tables.writing import TableWriter, table_writer, write_table

__all__ = [
    "Column",
    "Schema",
    "TableError",
    "TableFlow",
    "TableWriter",
    "load",
    "read_chunks",
    "read_table",
    "read_typed_chunks",
    "read_typed_table",
    "require_fittable",
    "table_writer",
    "write_table",
]
