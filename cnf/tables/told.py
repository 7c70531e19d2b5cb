"""Short descriptions of the model of a table."""

from __future__ import annotations

from abc import abstractmethod
from textwrap import shorten
from typing import Any

from cnf.card import Told, card, fit_facts
from cnf.tables.metadata import FitMetadata
from cnf.tables.schema import Schema

NAMES = 60  # length of the column names on a line


class ToldTable(Told):
    """The one-line description and the notebook card of a table model, with its columns and results."""

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
        """The columns, and the results of the fit."""
        modeled, context = (
            in_short([column.name for column in part])
            for part in (self.schema.modeled, self.schema.context)
        )
        given = {"given": context} if context else {}
        weights = sum(parameter.numel() for parameter in self.parameters())
        fit = {"rows": "not fitted", **fit_facts(self.metadata.as_json())}
        return {"columns": modeled, **given, "weights": f"{weights:,}", **fit}

    def _repr_html_(self) -> str:
        """A card for notebooks with the results and the history of the fit, and the columns."""
        records = (self.metadata.history or {}).get("records", [])
        curve = [record["valid_nll"] for record in records if record["valid_nll"] is not None]
        columns = {str(column.name): column.describe() for column in self.schema.columns}
        return card(self.title(), self.facts(), columns, curve)


def in_short(names: list[str]) -> str:
    """A text with the first few column names.

    >>> in_short(["age", "height"])
    'age, height'
    """
    return shorten(", ".join(names), NAMES, placeholder=" ...")
