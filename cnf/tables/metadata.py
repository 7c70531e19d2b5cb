"""The metadata of a fit in a model file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from torch import Tensor

from cnf.tables.columns import Column
from cnf.tables.forms import COUNT, MAYBE, NONE, NUMBER, TEXT, filled, fits, is_bounded, plain

# Levels of the stored quantiles of training rows, which set the axis limits of pictures without data.
LEVELS = (0.005, 0.025, 0.25, 0.5, 0.75, 0.975, 0.995)

SCORE = {"nll": MAYBE, "standard_error": MAYBE}
RECORD = {
    "phase": TEXT,
    "step": (int,),
    "seconds": NUMBER,
    "objective": MAYBE,
    "learning_rate": MAYBE,
    "valid_nll": MAYBE,
    "valid_se": MAYBE,
    "nfe": COUNT,
}
HISTORY = {
    "records": [RECORD],
    "valid_nll": MAYBE,
    "valid_se": MAYBE,
    "train_nll": MAYBE,
    "train_se": MAYBE,
    "rollbacks": ([TEXT], (NONE,)),
    "refit": (bool, NONE),
}
PATTERNS: dict[str, Any] = {
    "columns": ([TEXT], (NONE,)),
    "context": ([TEXT], (NONE,)),
    "rows": COUNT,
    "valid_rows": COUNT,
    "seed": COUNT,
    "version": (str, NONE),
    "interrupted": (bool, NONE),
    "choices": (dict, NONE),
    "units": (dict, NONE),
    "gaussian": (SCORE, (NONE,)),
    "history": (HISTORY, (NONE,)),
    "digest": ({"train": TEXT, "valid": TEXT}, (NONE,)),
    "orders": ([[TEXT]], (NONE,)),
    "quantiles": ({"levels": [NUMBER], "columns": (dict,)}, (NONE,)),
}
# Entries that require other entries.
NEEDS = {
    "rows": ("valid_rows",),
    "gaussian": ("rows", "valid_rows", "seed"),
    "quantiles": ("columns",),
    "orders": ("columns",),
}


@dataclass(frozen=True)
class FitMetadata:
    """Metadata of the fit of a model; None for entries that the file lacks.

    Attributes:
        columns: names of the modeled columns.
        context: names of the context columns.
        rows: number of rows that the model was fitted to.
        valid_rows: number of validation rows.
        quantiles: "levels", and "columns": name -> quantiles of its numbers in the training rows.
        gaussian: "nll" and "standard_error" of one Gaussian on the validation rows.
        orders: pairs [a, b] of modeled columns with a ≤ b in every row, see `cnf.tables.orders`.
        digest: hashes that identify training rows and held-out rows, see `cnf.tables.digest`.
        history: the history of the fit, as `cnf.History.as_dict` returns it.
        interrupted: whether the fit was stopped before its end.
        seed: seed of the fit.
        version: version of the package that made the fit.
        choices: the options of the user.
        units: name -> unit of a column, for plots.
        others: further entries of the user.

    Example:
        >>> FitMetadata(rows=90, valid_rows=10).as_json()
        {'rows': 90, 'valid_rows': 10}
    """

    columns: list[str] | None = None
    context: list[str] | None = None
    rows: int | None = None
    valid_rows: int | None = None
    quantiles: dict[str, Any] | None = None
    gaussian: dict[str, float | None] | None = None
    orders: list[list[str]] | None = None
    digest: dict[str, str] | None = None
    history: dict[str, Any] | None = None
    interrupted: bool | None = None
    seed: int | None = None
    version: str | None = None
    choices: dict[str, Any] | None = None
    units: dict[str, str] | None = None
    others: dict[str, Any] = field(default_factory=dict)

    @property
    def refit(self) -> bool:
        """Whether the model was finally refitted to the held-out rows, after they had scored it."""
        return bool((self.history or {}).get("refit"))

    def as_json(self) -> dict[str, Any]:
        """Data for JSON, without unknown entries."""
        known = asdict(self)
        others = known.pop("others")
        held = {name: part for name, part in known.items() if part is not None}
        return plain({**held, **others})

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FitMetadata:
        """The metadata from the result of `as_json`.

        Raises:
            ValueError: with the name of an invalid entry.
        """
        if not (isinstance(data, dict) and is_bounded(data)):
            raise ValueError("its record of the fit is damaged; fit it again")
        data = {name: part for name, part in data.items() if part is not None}
        for name, pattern in PATTERNS.items():
            if name in data and not fits(data[name], pattern):
                raise ValueError(f"its record of {name} is damaged; fit it again")
        if not all(isinstance(unit, str) for unit in data.get("units", {}).values()):
            raise ValueError("its units are not text; fit it again")
        names = [part.name for part in fields(cls) if part.name != "others"]
        known = {name: filled(data[name], PATTERNS[name]) for name in names if name in data}
        return cls(**known, others={k: v for k, v in data.items() if k not in names})

    def require_complete(self) -> None:
        """Raise an error for inconsistent metadata.

        Raises:
            ValueError: with the name of the missing or inconsistent entry.
        """
        for name, needs in NEEDS.items():
            missing = [need for need in needs if getattr(self, need) is None]
            if getattr(self, name) is not None and missing:
                raise ValueError(f"it lacks {missing[0]}, which {name} needs; fit it again")
        if not all(
            len(pair) == 2 and {*pair} <= {*(self.columns or ())} for pair in self.orders or ()
        ):
            raise ValueError("its orders are not of its columns; fit it again")
        if not (self._paired() and self._has_all_quantiles()):
            raise ValueError("its history is inconsistent; fit it again")

    def _paired(self) -> bool:
        """Every likelihood has its standard error, or there is neither."""
        history, gaussian = self.history or {}, self.gaussian or {}
        pairs = [(history, "valid_nll", "valid_se"), (history, "train_nll", "train_se")]
        pairs += [(record, "valid_nll", "valid_se") for record in history.get("records", [])]
        pairs.append((gaussian, "nll", "standard_error"))
        return all((part.get(a) is None) == (part.get(b) is None) for part, a, b in pairs)

    def _has_all_quantiles(self) -> bool:
        """Every column with quantiles is modeled, and has one for each level."""
        if self.quantiles is None:
            return True
        count, columns = len(self.quantiles["levels"]), self.quantiles["columns"]
        return columns.keys() <= set(self.columns or ()) and all(
            fits(part, [NUMBER]) and len(part) == count for part in columns.values()
        )


def quantiles(columns: list[Column], values: Tensor, present: Tensor) -> dict[str, Any]:
    """Quantiles of the numbers of columns (rows, columns), over the cells that are present.

    >>> from torch import ones
    >>> column = Column("a", "real")
    >>> quantiles([column], ones(3, 1), ones(3, 1).bool())["columns"]
    {'a': [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]}
    """
    found = {}
    for j, column in enumerate(columns):
        held = values[present[:, j], j]
        if len(held):
            found[column.name] = np.quantile(held.cpu().numpy(), LEVELS).tolist()
    return {"levels": list(LEVELS), "columns": found}
