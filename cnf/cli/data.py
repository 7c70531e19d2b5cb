"""DATA as the commands take it: a file or a toy, and names of columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import torch

from cnf.datasets import toy
from cnf.tables import Schema, read_typed_chunks
from cnf.tables.formats import choose_columns

TOY = "toy:"
TOY_ROWS = 100_000
TOY_COLUMNS = ["x0", "x1"]
# Rows to score are fresh: not those that the same toy gives to a fit.
FRESH = 2**62


def listed(texts: Sequence[str] | None) -> str | None:
    """The value of a repeatable option, as if it had been given once.

    >>> listed(["wind=angle:360", "lon,lat=sphere"])
    'wind=angle:360,lon,lat=sphere'
    """
    return ",".join(texts) if texts else None


def names_in(text: str | None) -> tuple[str, ...]:
    """The names in a list separated by commas; a name with a comma is in double quotes.

    >>> names_in('age, "height, cm"')
    ('age', 'height, cm')
    """
    if text is None:
        return ()
    names = next(csv.reader([text], skipinitialspace=True), [])
    if not names or "" in names or len(set(names)) < len(names):
        raise ValueError(f"{text!r}: expected distinct column names, separated by commas: a,b,c")
    return tuple(names)


def assignments(text: str | None) -> dict[str, str]:
    """The values of name=value pairs separated by commas; a pair with a comma is in double quotes.

    >>> assignments("region=north, age=31")
    {'region': 'north', 'age': '31'}
    """
    return _pairs(text, names_in(text))


def declarations(text: str | None) -> dict[str, str]:
    """`assignments` of types to columns, two of which may share one: lon,lat=sphere.

    >>> declarations("age=integer,lon,lat=sphere")
    {'age': 'integer', 'lon,lat': 'sphere'}
    """
    parts: list[str] = []
    for part in names_in(text):
        joined = parts and "=" not in parts[-1]
        parts[-1:] = [f"{parts[-1]},{part}"] if joined else [*parts[-1:], part]
    return _pairs(text, parts)


def _pairs(text: str | None, parts: Sequence[str]) -> dict[str, str]:
    pairs = [part.partition("=") for part in parts]
    for name, sign, value in pairs:
        if not (name.strip() and sign and value.strip()):
            raise ValueError(
                "expected name=value, with commas between pairs and double quotes around a pair with"
                f" a comma; got {text!r}"
            )
    found = {name.strip(): value.strip() for name, _, value in pairs}
    if len(found) < len(pairs):
        raise ValueError(f"expected each name once; got {text!r}")
    return found


def toy_table(
    data: str,
    *,
    columns: Sequence[str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """100,000 rows of toy:NAME.

    Raises:
        ValueError: for an unknown toy or column.
    """
    generator = torch.Generator().manual_seed(seed)
    x = toy(data.removeprefix(TOY)).sample(TOY_ROWS, generator, dtype=torch.float64)
    table = pd.DataFrame(x.numpy(), columns=TOY_COLUMNS)
    return table[choose_columns(TOY_COLUMNS, path=data, columns=columns, ignore=())]


def table_chunks(data: str, schema: Schema, **options: Any) -> Iterator[pd.DataFrame]:
    """The columns of a schema, from a file in chunks of bounded memory or from a toy.

    Args:
        data: the file, or toy:NAME.
        schema: the columns.
        **options: as `cnf.tables.read_typed_chunks` takes them.
    """
    if data.startswith(TOY):
        columns = [column.name for column in (*schema.modeled, *schema.context)]
        yield toy_table(data, columns=columns, seed=FRESH)
    else:
        yield from read_typed_chunks(data, schema, **options)
