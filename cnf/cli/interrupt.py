"""Ctrl-C during a fit: the update is finished and its state kept, so that nothing is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cnf.training import Trainer
from cnf.training.checkpoint import CheckpointWriter
from cnf.training.trainer import Callback


@contextmanager
def orderly_interrupts() -> Iterator[tuple[Callback, ...]]:
    """Watchers that stop a fit after the update in which Ctrl-C was pressed, its state written
    where it keeps one; pressed again, at once."""
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
            for watcher in trainer.callbacks:
                if isinstance(watcher, CheckpointWriter):
                    watcher.write(trainer)
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield (stop,)
    finally:
        signal.signal(signal.SIGINT, before)
