"""The card of a model in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, MARGIN = 160, 40, 3  # of the curve, pixels


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
