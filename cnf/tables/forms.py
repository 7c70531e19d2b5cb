"""Patterns of JSON data, against which a file is checked before it is used."""

from __future__ import annotations

import math
from typing import Any

from cnf.rows import LARGEST

# A pattern is types, a list of one pattern, a dict of patterns whose missing keys count as None, or a
# tuple of alternative patterns.
NONE = type(None)
NUMBER, MAYBE, TEXT, COUNT = (int, float), (int, float, NONE), (str,), (int, NONE)
# Limits of numbers and of nesting. Files of this package stay far below them, and readers are safe.
LARGEST_NUMBER, DEEPEST = LARGEST, 12


def plain(data: Any) -> Any:
    """Data in a form that JSON allows: numbers that are not finite become None.

    >>> plain({"nll": [1.0, float("nan")]})
    {'nll': [1.0, None]}
    """
    if isinstance(data, dict):
        return {name: plain(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def is_bounded(data: Any) -> bool:
    """Whether numbers are small enough for readers, and nesting is not too deep.

    >>> is_bounded({"rows": 90}), is_bounded({"rows": 10**400}), is_bounded([[[]]] * 3)
    (True, False, True)
    """
    parts = [data]
    for _ in range(DEEPEST):
        if any(isinstance(part, int | float) and abs(part) > LARGEST_NUMBER for part in parts):
            return False
        inner = [
            part.values() if isinstance(part, dict) else part
            for part in parts
            if isinstance(part, dict | list)
        ]
        parts = [part for held in inner for part in held]
    return not parts


def fits(value: Any, pattern: Any) -> bool:
    """Whether JSON data has the form of a pattern.

    >>> fits({"a": [1, 2.5]}, {"a": [NUMBER]}), fits({"a": [True]}, {"a": [NUMBER]})
    (True, False)
    """
    if isinstance(pattern, list):
        return isinstance(value, list) and all(fits(part, pattern[0]) for part in value)
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(
            fits(value.get(key), part) for key, part in pattern.items()
        )
    if isinstance(pattern[0], type):
        return isinstance(value, pattern) and (bool in pattern or not isinstance(value, bool))
    return any(fits(value, part) for part in pattern)


def filled(value: Any, pattern: Any) -> Any:
    """Data that matches a pattern, with None for missing keys.

    >>> filled({"nll": 1.0}, {"nll": MAYBE, "error": MAYBE})
    {'nll': 1.0, 'error': None}
    """
    if isinstance(pattern, tuple) and not isinstance(pattern[0], type):
        return filled(value, next(part for part in pattern if fits(value, part)))
    if isinstance(pattern, list):
        return [filled(part, pattern[0]) for part in value]
    if isinstance(pattern, dict):
        return value | {key: filled(value.get(key), part) for key, part in pattern.items()}
    return value
