"""Functions that a training loop calls after each training step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from cnf.deprecation import warn_renamed
from cnf.inputs import brief


class Callback(Protocol):
    """A function of the training loop, such as a progress bar, a checkpoint writer or an early
    stop.

    Every loop has `step` (training steps so far), `history` and `stop()`; a `Trainer` has more.
    """

    def __call__(self, loop: Any, /) -> None:
        """Called after every training step with the loop: a `Trainer` or a `Minimization`."""


def as_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    """The callbacks of a fit.

    Raises:
        TypeError: for anything other than a sequence of functions, such as a function alone.
    """
    found = tuple(callbacks) if isinstance(callbacks, Iterable) else (None,)
    if not all(map(callable, found)):
        raise TypeError(
            f"callbacks: expected a list of functions of the loop; got {brief(callbacks)}"
        )
    return found


def renamed_callbacks(
    function: str, given: dict[str, Any], callbacks: Sequence[Callback]
) -> Sequence[Callback]:
    """The callbacks of a function that took `watch` in release 0.1, called with the number of
    training steps.

    Raises:
        TypeError: for any other keyword in `given`.
    """
    watch: Callable[[int], None] | None = given.pop("watch", None)
    if watch is not None:
        warn_renamed(f"{function}: the argument watch", "callbacks")
    if given:
        raise TypeError(f"{function}: unknown keyword {next(iter(given))!r}")
    return callbacks if watch is None else [*callbacks, lambda loop: watch(loop.step)]
