"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to, with the name of `path`, that takes its place when the block ends well.

    The file is made in a temporary folder beside its target, so the last step is one rename: a
    reader of `path` finds the old file or the new one. An exception in the block removes the new
    file and does not change `path`. A new file has the permissions of the one it replaces. A
    device or a pipe cannot be replaced, so it is written to at the end.

    Raises:
        ValueError: on entering, before any work: `path` is a folder or a link that leads nowhere,
            or its own folder is missing or closed to writing.

    >>> folder = tempfile.TemporaryDirectory()
    >>> target = Path(folder.name, "numbers.txt")
    >>> with atomic_path(target) as path:
    ...     size = path.write_text("1 2 3")
    >>> target.read_text()
    '1 2 3'
    >>> folder.cleanup()
    """
    target, mode = _target(path)
    replaced = mode is None or stat.S_ISREG(mode)
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(_folder(target.parent if replaced else None))
        except OSError as error:
            reason = f"{error.strerror}: {target.parent}"
            raise ValueError(
                f"{path}: cannot be written: {reason}; choose a folder open to writing"
            ) from error
        temporary = Path(folder, target.name)
        yield temporary
        if replaced:
            temporary.chmod(temporary.stat().st_mode if mode is None else stat.S_IMODE(mode))
            temporary.replace(target)
        else:
            with temporary.open("rb") as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)


def _target(path: str | os.PathLike[str]) -> tuple[Path, int | None]:
    """Where a path leads, and the mode of what is there; None where nothing is.

    Raises:
        ValueError: for a folder, or links that lead to themselves.
    """
    try:
        target = Path(path).resolve()
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return target, None
    except (OSError, RuntimeError) as error:  # a loop of links is the one or the other
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: cannot be written: {reason}; give another name") from error
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path}: cannot be written: it is a folder; give the name of a file")
    return target, mode


def _folder(beside: Path | None) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder, swept away by a later process where this one is killed."""
    if beside is not None:
        _sweep(beside)
    return tempfile.TemporaryDirectory(prefix=f"{_mine()}{os.getpid()}-", dir=beside)


def _mine() -> str:
    """How the temporary folders of this machine begin; the number of their process follows."""
    return f".cnf-{platform.node().replace('/', '')}-"


def _sweep(folder: Path) -> None:
    """Remove what processes of this machine left in a folder when they were killed."""
    # tempfile ends its names with eight signs; folders of other names are not ours.
    ours = re.compile(rf"{re.escape(_mine())}([0-9]{{1,9}})-[a-z0-9_]{{8}}")
    for left in folder.glob(f"{_mine()}*"):
        found = ours.fullmatch(left.name)
        if found and not _runs(int(found[1])):
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
