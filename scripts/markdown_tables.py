"""Tables in Markdown, and the numbers in figures/ that they contain."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).parent.parent / "figures"


def figures(name: str) -> Any:
    """The numbers of one file of figures/."""
    return json.loads((FIGURES / f"{name}.json").read_text(encoding="utf-8"))


def number(value: float, digits: int) -> str:
    """A number as the pages print it, with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")


def numbers(values: Iterable[float], digits: int) -> str:
    return ", ".join(number(value, digits) for value in values)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
