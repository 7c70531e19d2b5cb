"""The geometry of the numbers of a table."""

from __future__ import annotations

from collections.abc import Sequence

from cnf.tables.columns import Column
from cnf.tables.formats import TableError, shown
from cnf.transforms import Charts


def charts_of(columns: Sequence[Column]) -> Charts | None:
    """The transform of numeric columns that include angles or spheres; None if all are real.

    Raises:
        TableError: for a longitude without a latitude or the reverse, or if only one of them may be
            missing.
    """
    places = {column.name: place for place, column in enumerate(columns)}
    periods, starts, pairs = {}, {}, []
    for place, column in enumerate(columns):
        circle, partner = column.type.circle(column), column.type.partner(column)
        if circle is not None:
            starts[place] = circle.start
        if partner is not None:
            pairs.append((place, _latitude(columns, places, column, partner)))
        elif circle is not None:
            periods[place] = circle.period
    lone = {place for place, column in enumerate(columns) if column.kind == "sphere"}
    for place in lone - {place for pair in pairs for place in pair}:
        raise _alone(columns[place], str(columns[place].parameters[1]))
    return Charts(len(columns), periods, pairs, starts=starts) if periods or pairs else None


def pairs_of(columns: Sequence[Column]) -> list[tuple[int, int]]:
    """Indices of each longitude and its latitude among columns."""
    places = {column.name: place for place, column in enumerate(columns)}
    partners = [(place, column.type.partner(column)) for place, column in enumerate(columns)]
    return [(place, places[name]) for place, name in partners if name in places]


def _latitude(
    columns: Sequence[Column], places: dict[str, int], column: Column, partner: str
) -> int:
    if partner not in places or columns[places[partner]].kind != column.kind:
        raise _alone(column, partner)
    return places[partner]


def _alone(column: Column, partner: str) -> TableError:
    return TableError(
        f"column {shown(column.name)}: expected {shown(partner)} beside it, the other half of the"
        " sphere; model both, or declare it real"
    )
