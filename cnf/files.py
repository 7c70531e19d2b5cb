"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to, with the name of `path`, that takes its place when the block ends well.

    The file is made in a temporary folder beside its target, so the last step is one rename:
    whoever opens `path` finds the old file or the new one. An exception in the block removes what
    was written and leaves `path` as it was.

    Raises:
        ValueError: on entering, before any work: `path` is a folder, or its own folder is missing
            or closed to writing.

    >>> folder = tempfile.TemporaryDirectory()
    >>> target = Path(folder.name, "numbers.txt")
    >>> with atomic_path(target) as path:
    ...     size = path.write_text("1 2 3")
    >>> target.read_text()
    '1 2 3'
    >>> folder.cleanup()
    """
    target = Path(path).resolve()
    if target.is_dir():
        raise ValueError(f"{path}: cannot be written: it is a folder; give the name of a file")
    with ExitStack() as stack:
        try:
            _sweep(target.parent)
            prefix = f"{_mine()}{os.getpid()}-"
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent)
            )
        except OSError as error:
            reason = f"{error.strerror}: {target.parent}"
            raise ValueError(
                f"{path}: cannot be written: {reason}; choose a folder open to writing"
            ) from error
        temporary = Path(folder, target.name)
        yield temporary
        temporary.replace(target)


def _mine() -> str:
    """How the temporary folders of this machine begin; the number of their process follows."""
    return f".cnf-{platform.node().replace('/', '')}-"


def _sweep(folder: Path) -> None:
    """Remove what processes of this machine left in a folder when they were killed."""
    for left in folder.glob(f"{_mine()}*"):
        number = left.name.removeprefix(_mine()).partition("-")[0]
        if number.isdecimal() and not _runs(int(number)):
            shutil.rmtree(left, ignore_errors=True)


def _runs(process: int) -> bool:
    """Whether a process of this machine is still there."""
    try:
        os.kill(process, 0)  # asks, and sends nothing
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
