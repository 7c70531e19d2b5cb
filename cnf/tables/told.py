"""A model of a table in a few words."""

from __future__ import annotations

from abc import abstractmethod
from textwrap import shorten
from typing import Any

from cnf.card import Told, card, fit_facts
from cnf.tables.metadata import FitMetadata
from cnf.tables.schema import Schema

NAMES = 60  # letters of the names of columns on a line


class ToldTable(Told):
    """The line and the card of a model of a table: its columns, and what the fit found."""

    schema: Schema
    parameters: Any

    @property
    @abstractmethod
    def metadata(self) -> FitMetadata:
        """The metadata of the fit."""

    def title(self) -> str:
        """What it is."""
        return type(self).__name__

    def facts(self) -> dict[str, object]:
        """Its columns and the result of the fit."""
        modeled, context = (
            in_short([column.name for column in part])
            for part in (self.schema.modeled, self.schema.context)
        )
        given = {"given": context} if context else {}
        weights = sum(parameter.numel() for parameter in self.parameters())
        fit = {"rows": "not fitted", **fit_facts(self.metadata.as_json())}
        return {"columns": modeled, **given, "weights": f"{weights:,}", **fit}

    def _repr_html_(self) -> str:
        """A card for notebooks: what the fit found, its course, and the columns."""
        records = (self.metadata.history or {}).get("records", [])
        curve = [record["valid_nll"] for record in records if record["valid_nll"] is not None]
        columns = {str(column.name): column.describe() for column in self.schema.columns}
        return card(self.title(), self.facts(), columns, curve)


def in_short(names: list[str]) -> str:
    """The first of the names of columns.

    >>> in_short(["age", "height"])
    'age, height'
    """
    return shorten(", ".join(names), NAMES, placeholder=" ...")
