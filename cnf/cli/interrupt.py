"""Ctrl-C during a fit: the training step is finished and its state kept, so that nothing is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cnf.training import Callback, Trainer


@contextmanager
def orderly_interrupts() -> Iterator[tuple[Callback, ...]]:
    """Callbacks that stop a fit after the training step in which Ctrl-C was pressed, and write its
    checkpoint if it has one; a second Ctrl-C stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield ()
        return
    pressed: list[int] = []

    def note(number: int, frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    def stop(trainer: Trainer) -> None:
        if pressed:
            trainer.stop()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield (stop,)
    finally:
        signal.signal(signal.SIGINT, before)
