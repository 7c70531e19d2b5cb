"""A model in a few words: a line in a terminal, a card in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, MARGIN = 160, 40, 3  # of the curve, pixels


class Told(ABC):
    """An object that a line and a card describe by the same facts."""

    @abstractmethod
    def title(self) -> str:
        """What it is."""

    @abstractmethod
    def facts(self) -> dict[str, object]:
        """What is known of it, by name."""

    def __repr__(self) -> str:
        """One line: the title and the facts."""
        told = "; ".join(f"{name}: {fact}" for name, fact in self.facts().items())
        return " ".join(f"{self.title()} ({told})".split())

    def _repr_html_(self) -> str:
        """A card for notebooks."""
        return card(self.title(), self.facts())


def fit_facts(metadata: Mapping[str, Any]) -> dict[str, object]:
    """The rows and the result of a fit, as far as a model has them.

    >>> fit_facts({"rows": 1200, "history": {"valid_nll": 1.5, "valid_se": 0.25}})
    {'rows': '1,200', 'held-out NLL': '1.500 ± 0.250 nats a row'}
    """
    facts: dict[str, object] = {}
    if (rows := metadata.get("rows")) is not None:
        facts["rows"] = f"{rows:,}"
    known = metadata.get("history") or {}
    if (nll := known.get("valid_nll")) is not None:
        facts["held-out NLL"] = f"{nll:.3f} ± {known['valid_se']:.3f} nats a row"
    return facts


def card(
    title: str,
    facts: Mapping[str, object],
    columns: Mapping[str, str] | None = None,
    curve: Sequence[float] = (),
) -> str:
    """A title, facts, columns with what they are, and a small curve, as HTML without scripts.

    Every text is escaped. Colors are those around it, so that it is readable in light and dark.

    Example:
        >>> print(card("a <model>", {"rows": 90}))
        <div class="cnf-card"><strong>a &lt;model&gt;</strong><p>rows: 90</p></div>
    """
    told = "<br>".join(f"{escape(name)}: {escape(str(fact))}" for name, fact in facts.items())
    parts = [f"<strong>{escape(title)}</strong>", f"<p>{told}</p>" if told else ""]
    if len(curve) > 1:
        parts.append(_drawn(curve))
    if columns:
        rows = (
            f"<tr><th>{escape(n)}</th><td>{escape(what)}</td></tr>" for n, what in columns.items()
        )
        parts.append(f'<table style="text-align: left; color: inherit">{"".join(rows)}</table>')
    return f'<div class="cnf-card">{"".join(parts)}</div>'


def _drawn(curve: Sequence[float]) -> str:
    """A line from left to right, the largest number at the top."""
    low, high = min(curve), max(curve)
    across = (WIDTH - 2 * MARGIN) / (len(curve) - 1)
    up = (HEIGHT - 2 * MARGIN) / ((high - low) or 1.0)
    points = " ".join(
        f"{MARGIN + i * across:.1f},{HEIGHT - MARGIN - (y - low) * up:.1f}"
        for i, y in enumerate(curve)
    )
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="held-out NLL while training">'
        f'<polyline points="{points}" fill="none" stroke="currentColor"/></svg>'
    )
