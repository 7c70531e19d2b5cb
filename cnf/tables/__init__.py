"""Tables of numbers in csv, csv.gz, parquet, npy and npz files.

What is wrong with a file is a `TableError`: one line with the file, the column, the line or row, what was
expected and what to do. Files are written whole or not at all.
"""

from cnf.tables.formats import TableError
from cnf.tables.reading import read_chunks, read_table, require_fittable
from cnf.tables.writing import TableWriter, table_writer, write_table

__all__ = [
    "TableError",
    "TableWriter",
    "read_chunks",
    "read_table",
    "require_fittable",
    "table_writer",
    "write_table",
]
