"""Text that a terminal shows as it is: help needs nothing else of what a command prints."""

from __future__ import annotations


def escaped(line: str) -> str:
    """One line for a terminal: characters that would move its cursor, change its colors or change
    the direction of writing are escaped.

    >>> print(escaped("a" + chr(27) + "[2J b" + chr(0x202E)))
    a\\x1b[2J b\\u202e
    """
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)
