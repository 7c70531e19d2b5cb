"""What leaves a command: files, text, one JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from cnf.cli.escaping import escaped
from cnf.files import atomic_path
from cnf.tables.forms import plain


def require_writable(path: Path, *inputs: str | Path | None) -> None:
    """Refuse, before the work, an output that cannot be written after it, or that would replace an
    input.

    Raises:
        ValueError: if `path` is a folder, in a folder that is missing or closed, or one of the
            inputs.
    """
    for given in inputs:
        if given is not None and path.exists() and Path(given).exists() and path.samefile(given):
            raise ValueError(
                f"{path}: cannot be written: it is an input too; give the output another name"
            )
    # Nothing is written to the temporary name, so nothing can take the place of `path`.
    with suppress(FileNotFoundError), atomic_path(path):
        pass


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say which output it was that could not be written, a full disk for instance.

    Raises:
        ValueError: instead of the OSError or SafetensorError of the block.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{path}: cannot be written ({error}); free some space, or choose another folder"
        ) from error


def say(*lines: str) -> None:
    """Print lines on standard output, which may be full or closed, or unable to spell a sign."""
    encoding, text = sys.stdout.encoding or "utf-8", "\n".join(map(escaped, lines))
    try:
        print(text.encode(encoding, "replace").decode(encoding), flush=True)
    except OSError:
        sys.stdout = (
            None  # what could not be printed would be tried, and complained about, again at exit
        )
        raise


def say_json(data: dict[str, Any]) -> None:
    """Print data as one JSON object on standard output."""
    say(json.dumps(plain(data), allow_nan=False))
