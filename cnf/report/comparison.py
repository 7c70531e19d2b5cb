"""The HTML report on a comparison of a real and a synthetic table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
from markupsafe import Markup

from cnf.diagnostics.comparison import Comparison, TablePair
from cnf.diagnostics.comparison.pair import some_rows
from cnf.files import atomic_path
from cnf.pictures.context import ROWS, TableRows
from cnf.report.figures import MOST_PAIRED, marginals, pairs
from cnf.report.templates import asset, filled
from cnf.version import VERSION

MOST_LISTED = 15  # columns, pairs or orders in a table of the page

Row: TypeAlias = "tuple[str, tuple[float, ...]]"


def write_comparison(found: Comparison, output: str | Path, title: str = "Two tables") -> None:
    """Write one page that shows how far two tables are apart; it needs no network.

    Args:
        found: what `cnf.diagnostics.comparison.compare` found.
        output: the file to write, replaced only by a complete new one.
        title: heading of the page.

    Raises:
        OSError: for an output that cannot be written.
    """
    text = filled(
        "comparison.html",
        title=title,
        pair=found.pair,
        sections=[part for part in _sections(found) if part[2]],
        version=VERSION,
        style=Markup(asset("page.css")),
    )
    with atomic_path(output) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sections(found: Comparison) -> Iterator[tuple[str, str, str]]:
    rows = rows_of(found.pair)
    yield "measures", "Measures", filled("measures.html", measures=found.measures)
    shown = filled("columns.html", pictures=marginals(rows), samples="synthetic rows")
    listed = _worst(
        "columns", ("column", "likeness"), [(n, (v,)) for n, v in found.shapes.items()]
    )
    yield "columns", "Columns", shown + listed
    count = len(rows.names)
    if count > 1:
        drawn = filled("pairs.html", picture=pairs(rows), count=count, most=MOST_PAIRED)
        yield (
            "pairs",
            "Columns in pairs",
            drawn + _worst("pairs", ("pair", "likeness"), _pairs(found)),
        )
    orders = [(order.text, (order.fake, order.real)) for order in found.constraints]
    if orders:
        heads = ("order", "violated by synthetic rows", "by real rows")
        yield "orders", "Orders that hold in real rows", _listed("orders", heads, orders)


def _pairs(found: Comparison) -> list[Row]:
    names = list(found.trends)
    return [(f"{a}, {b}", (found.trends.loc[a, b],)) for a, b in combinations(names, 2)]


def _worst(name: str, heads: Sequence[str], rows: Sequence[Row]) -> Markup:
    known = [row for row in rows if not np.isnan(row[1][0])]
    return _listed(name, heads, sorted(known, key=lambda row: row[1][0]))


def _listed(name: str, heads: Sequence[str], rows: Sequence[Row]) -> Markup:
    return filled("worst.html", label=name, heads=heads, rows=rows[:MOST_LISTED], count=len(rows))


def rows_of(pair: TablePair) -> TableRows:
    """Some rows of both tables as numbers, for plots; a category is the index of its level."""
    random = np.random.default_rng(0)
    tables = [some_rows(table, ROWS, random) for table in (pair.real, pair.fake)]
    levels = [_levels(name, pair) for name in pair.real]
    real, fake = (
        np.column_stack([_numbers(table[name], known) for name, known in zip(table, levels)])
        for table in tables
    )
    named = [None if known is None else [str(level) for level in known] for known in levels]
    return TableRows([str(name) for name in pair.real], named, real, fake)


def _levels(name: str, pair: TablePair) -> list[object] | None:
    """The levels of a categorical column in both tables, the most frequent first."""
    if name in pair.numeric:
        return None
    return list(pd.concat([pair.real[name], pair.fake[name]]).value_counts().index)


def _numbers(cells: pd.Series, levels: list[object] | None) -> np.ndarray:
    if levels is None:
        return cells.to_numpy(float)
    places = pd.Index(levels, dtype=object).get_indexer(cells).astype(float)
    return np.where(places < 0, np.nan, places)
