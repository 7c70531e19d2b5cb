"""A column as JSON data, and back."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from cnf.tables.columns import Column
from cnf.tables.forms import COUNT, MAYBE, NONE, NUMBER, TEXT, fits, plain
from cnf.tables.spelling import spelling_from_json

LEVEL = (str, int, float, bool)
WORD, NUMBERS, WORDS, LEVELS = (
    (str, NONE),
    ([NUMBER], (NONE,)),
    ([TEXT], (NONE,)),
    ([LEVEL], (NONE,)),
)
# The form of a column as JSON; see `cnf.tables.forms`.
COLUMN: dict[str, Any] = {
    **{"name": TEXT, "kind": TEXT, "role": WORD, "dtype": WORD, "reason": WORD},
    **{"lower": MAYBE, "upper": MAYBE, "step": MAYBE, "places": COUNT, "missing": (bool, NONE)},
    **{"levels": LEVELS, "parameters": LEVELS, "categories": LEVELS, "atoms": NUMBERS},
    **{"missing_words": WORDS, "spelling": (dict, NONE)},
}


def column_as_json(column: Column) -> dict[str, Any]:
    """A column as data for JSON; defaults are left out.

    >>> column_as_json(Column("age", "integer", step=1.0))
    {'name': 'age', 'kind': 'integer', 'step': 1.0}
    """
    defaults = {field.name: field.default for field in fields(Column)}
    parts = asdict(column).items()
    return plain({name: part for name, part in parts if part != defaults[name]})


def column_from_json(data: dict[str, Any]) -> Column:
    """The column from a result of `column_as_json`.

    Raises:
        ValueError: for any other data.
    """
    if not fits(data, COLUMN) or not data.keys() <= COLUMN.keys() or None in data.values():
        raise ValueError(f"not a column: {data!r:.100}")
    parts: dict[str, Any] = {
        name: tuple(part) if isinstance(part, list) else part for name, part in data.items()
    }
    if "spelling" in parts:
        parts["spelling"] = spelling_from_json(parts["spelling"])
    return Column(**parts)
