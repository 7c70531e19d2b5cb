"""Tables of error bounds, and of the posterior of two moons."""

from __future__ import annotations

from statistics import median
from typing import Any

from markdown_tables import figures, number, table

HELD_OUT = "held-out rows"
BOUNDS = (
    *("rows", "marked ok", "of these, error within bound"),
    *("largest error / bound", "bound / error, median"),
)


def errors() -> str:
    """Error bounds against true errors."""
    rows = [
        (each["flow"], f"{100 * each['covered']:g} %", number(each["ratio"], 1),
         f"{each['error']:.0e}", number(each["nfe"], 1), f"{each['dopri5_nfe']}",
         number(each["nfe"] / each["dopri5_nfe"], 2))
        for each in figures("benchmark_errors")
    ]  # fmt: skip
    header = (
        *("flow", "rows whose bound covers the error", "bound / error, median"),
        *("mean error, nats", "evaluations: cnf", "dopri5", "ratio"),
    )
    return table(header, rows)


def bounds_by_region() -> str:
    """Bounds near and far, in every precision."""
    cells = figures("error_bars")
    keys = dict.fromkeys((each["region"], each["precision"]) for each in cells)
    rows = [
        (*key, *_bounds([each for each in cells if (each["region"], each["precision"]) == key]))
        for key in keys
    ]
    return table(("where", "precision", *BOUNDS), rows)


def bounds_by_flow() -> str:
    """Bounds of every flow, in all precisions together."""
    cells = figures("error_bars")
    keys = dict.fromkeys((each["flow"], each["updates"]) for each in cells)
    rows = []
    for name, updates in keys:
        own = [each for each in cells if (each["flow"], each["updates"]) == (name, updates)]
        near = [each for each in own if each["region"] == HELD_OUT]
        far = [each for each in own if each["region"] != HELD_OUT]
        for where, found in ((HELD_OUT, near), ("far", far)):
            rows.append((name, f"{updates:,}", where, *_bounds(found)))
    return table(("flow", "training steps", "where", *BOUNDS), rows)


def _bounds(cells: list[dict[str, Any]]) -> tuple[str, ...]:
    """What some cells say together."""
    rows, ok, covered = (sum(each[name] for each in cells) for name in ("rows", "ok", "covered"))
    sound = [each for each in cells if each["ok"]]
    if not sound:
        return f"{rows:,}", "0 %", "–", "–", "–"
    return (
        f"{rows:,}",
        f"{100 * ok / rows:.1f} %",
        f"{100 * covered / ok:.2f} %",
        number(max(each["worst"] for each in sound), 2),
        number(median(each["ratio"] for each in sound), 1),
    )


def two_moons() -> str:
    """Distances to the posterior of the two moons."""
    found = figures("two_moons")["nats"]
    rows = [(name, f"{number(mean, 3)} ± {error:.3f}") for name, (mean, error) in found.items()]
    return table(("method", "distance to the posterior, nats"), rows)
