"""Draws that satisfy a condition, by rejection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

# Draws for each wanted row at most, and at once.
MOST_DRAWS, FEWEST_AT_ONCE, MOST_AT_ONCE = 1_000, 256, 65_536


def accepted(
    draw: Callable[[int], pd.DataFrame],
    conditions: Mapping[str, Callable[[pd.DataFrame], Any]],
    rows: int,
) -> pd.DataFrame:
    """The first `rows` draws that satisfy every condition; `attrs["acceptance"]` is the share of
    draws that did.

    Args:
        draw: makes so many rows.
        conditions: which rows of a frame are wanted (rows,), as booleans, by the name that the user
            knows each condition by; one at least.
        rows: how many.

    Raises:
        ValueError: once a thousand draws a wanted row were not enough.

    Example:
        >>> frame = pd.DataFrame({"x": [1, 2, 3, 4]})
        >>> where = {"where": lambda f: f["x"] > 2}
        >>> kept = accepted(lambda n: frame.loc[frame.index.repeat(n)], where, 5)
        >>> kept["x"].gt(2).all(), len(kept), kept.attrs["acceptance"]
        (np.True_, 5, 0.5)
    """
    parts: list[pd.DataFrame] = []
    drawn = kept = 0
    while not parts or kept < rows:
        if parts and drawn >= MOST_DRAWS * rows:
            raise ValueError(
                f"{' and '.join(conditions)}: expected {rows:,} rows; got {kept:,} in {drawn:,} draws:"
                " ask for fewer rows, drop the condition, or fit with a larger budget"
            )
        rate = max(kept, 1) / max(drawn, 1)
        count = int((rows - kept) / rate) if drawn else rows
        frame = draw(min(max(count, FEWEST_AT_ONCE), MOST_AT_ONCE))
        wanted = [np.asarray(condition(frame), dtype=bool) for condition in conditions.values()]
        parts.append(frame[np.all(wanted, axis=0)])
        drawn, kept = drawn + len(frame), kept + len(parts[-1])
    found = pd.concat(parts, ignore_index=True).iloc[:rows]
    found.attrs["acceptance"] = kept / drawn
    return found
