"""Progress of a fit on standard error: a bar on a terminal, elsewhere a line about each stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cnf.training import Callback, ProgressBar


@contextmanager
def progress() -> Iterator[tuple[Callback, ...]]:
    """Callbacks of a fit: a bar on standard error where that is a terminal, else lines."""
    shown = ProgressBar()
    try:
        yield (shown,)
    finally:
        shown.close()
