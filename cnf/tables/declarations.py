"""Declarations of column types by the user."""

from __future__ import annotations

from cnf.tables.columns import TYPES, ColumnType, unknown_type


def declared_type(kind: str, name: str) -> tuple[ColumnType, list[str]]:
    """The type in a declaration such as "bounded:0:1", and its parameters.

    Raises:
        TableError: for an unknown type.
    """
    word, *parameters = kind.split(":")
    if word not in TYPES.names:
        raise unknown_type(name, kind)
    return TYPES[word], parameters
