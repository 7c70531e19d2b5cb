"""What a table's column is: its kind, its support, its atoms and whether its cells may be
missing."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

Kind = Literal["real", "positive", "bounded", "integer", "categorical", "ignored"]
Role = Literal["modeled", "context"]
Level = str | int | float | bool
# More categories than this cannot be learnt one by one.
MOST_LEVELS = 1000
# Further from zero than so many steps, floating-point numbers are no grid.
MOST_STEPS = 2.0**53
FEW_SHOWN = 6


@dataclass(frozen=True)
class Column:
    """One column: what its cells may hold.

    A cell of a column shows one of `symbols`: a category is its own symbol; a numeric cell is "a
    number" (0), one of the atoms (1, 2, …) or, last, missing.

    Attributes:
        name: as in the table.
        kind: real, positive (> 0), bounded (lower < x < upper), integer (a multiple of `step`),
            categorical or ignored.
        role: "context" where the density is conditioned on the column.
        lower: end of the support of the density part; None for −∞. That of an integer lies half a
            step outside its smallest value.
        upper: other end; None for ∞.
        step: of an integer column, 1 or a decimal step such as 0.01.
        levels: the categories.
        atoms: values that hold probability themselves, beside the density.
        missing: whether cells may be missing.
        dtype: how samples are typed: float64, int64, bool, str or category.

    Raises:
        ValueError: for parts that do not fit together.

    Example:
        >>> Column("age", "integer", lower=-0.5, step=1.0, dtype="int64").describe()
        'integer, from 0'
    """

    name: str
    kind: Kind
    role: Role = "modeled"
    lower: float | None = None
    upper: float | None = None
    step: float | None = None
    levels: tuple[Level, ...] = ()
    atoms: tuple[float, ...] = ()
    missing: bool = False
    dtype: str = "float64"

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or self.role not in get_args(Role):
            raise ValueError(
                f"column {self.name!r}: unknown kind or role {self.kind!r}, {self.role!r}"
            )
        numbers = [self.lower, self.upper, self.step, *self.atoms]
        if not all(number is None or math.isfinite(number) for number in numbers):
            raise ValueError(
                f"column {self.name!r}: expected finite bounds, step and atoms; got {numbers}"
            )
        if self.kind == "bounded" and not (self.bounded_below and self.bounded_above):
            raise ValueError(
                f"column {self.name!r}: a bounded column needs two bounds: bounded:0:1"
            )
        if self.bounded_below and self.bounded_above and not self.lower < self.upper:
            raise ValueError(
                f"column {self.name!r}: expected lower < upper; got {self.lower}, {self.upper}"
            )
        if (self.kind == "integer") != (self.step is not None) or not (
            self.step is None or self.step > 0
        ):
            raise ValueError(
                f"column {self.name!r}: an integer column, and no other, needs a step > 0"
            )
        if (self.kind == "categorical") != bool(self.levels) or len(set(self.levels)) < len(
            self.levels
        ):
            raise ValueError(
                f"column {self.name!r}: a categorical column needs its different levels"
            )

    @property
    def numeric(self) -> bool:
        """Whether its cells are numbers."""
        return self.kind not in ("categorical", "ignored")

    @property
    def range(self) -> tuple[float | None, float | None]:
        """The ends of the support of its density, None for no end."""
        return self.lower, self.upper

    @property
    def bounded_below(self) -> bool:
        """Whether the support of its density has a lower end."""
        return self.lower is not None

    @property
    def bounded_above(self) -> bool:
        """Whether the support of its density has an upper end."""
        return self.upper is not None

    @property
    def heaps(self) -> tuple[float, ...]:
        """The atoms of an integer column that lie inside the support of its density,
        increasing."""
        low = -math.inf if self.lower is None else self.lower
        high = math.inf if self.upper is None else self.upper
        return tuple(
            sorted(atom for atom in self.atoms if self.kind == "integer" and low < atom < high)
        )

    @property
    def closed(self) -> Column:
        """The column that its density is of: the grid moved together where its heaps were taken
        out."""
        if not self.heaps:
            return self
        upper = None if self.upper is None else self.upper - len(self.heaps) * self.step
        return replace(self, upper=upper, atoms=())

    @property
    def symbols(self) -> int:
        """How many symbols a cell may show."""
        return (
            len(self.levels) if self.kind == "categorical" else 1 + len(self.atoms)
        ) + self.missing

    @property
    def plain(self) -> bool:
        """Whether it is continuous without atoms or missing cells."""
        return self.kind in ("real", "positive", "bounded") and self.symbols == 1

    def describe(self) -> str:
        """The column in words."""
        parts = [self.kind, *self._details()]
        if self.atoms:
            parts.append(f"exactly {self._atoms()} at times")
        if self.missing:
            parts.append("with missing cells")
        return ", ".join(parts) + (" (context)" if self.role == "context" else "")

    def _atoms(self) -> str:
        shown = [f"{atom:g}" for atom in self.atoms]
        if len(shown) <= FEW_SHOWN:
            return " or ".join(shown)
        return f"{', '.join(shown[:FEW_SHOWN])} or {len(shown) - FEW_SHOWN} more"

    def _details(self) -> list[str]:
        if self.kind == "categorical":
            shown = ", ".join(map(str, self.levels[:FEW_SHOWN]))
            shown += ", …" if len(self.levels) > FEW_SHOWN else ""
            return [f"{len(self.levels)} levels: {shown}"]
        if self.kind == "bounded":
            return [f"between {self.lower:g} and {self.upper:g}"]
        if self.kind != "integer":
            return []
        step = [] if self.step == 1 else [f"times {self.step:g}"]
        first = [f"from {self.lower + self.step / 2:g}"] if self.bounded_below else []
        last = [f"to {self.upper - self.step / 2:g}"] if self.bounded_above else []
        return [*step, *first, *last]

    def as_json(self) -> dict[str, Any]:
        """The column as JSON-ready data; what is at its default is left out."""
        defaults = {field.name: field.default for field in fields(self)}
        return {key: value for key, value in asdict(self).items() if value != defaults[key]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Column:
        """The column that `as_json` wrote.

        Raises:
            ValueError: for anything else.
        """
        try:
            known = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in data.items()
            }
            column = cls(**known)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a column: {data!r:.100}") from error
        if not column._typed():
            raise ValueError(f"not a column: {data!r:.100}")
        return column

    def _typed(self) -> bool:
        """Whether every part is of its type, as JSON does not promise."""
        texts, tuples = (self.name, self.kind, self.role, self.dtype), (self.levels, self.atoms)
        numbers = [number for number in (self.lower, self.upper, self.step) if number is not None]
        return (
            all(isinstance(text, str) for text in texts)
            and all(isinstance(part, tuple) for part in tuples)
            and isinstance(self.missing, bool)
            and all(type(number) in (int, float) for number in (*numbers, *self.atoms))
            and all(isinstance(level, str | int | float) for level in self.levels)
        )
