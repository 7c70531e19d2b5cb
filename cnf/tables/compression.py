"""Text files, plain or compressed."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _only_member(path: Path, mode: str) -> Any:
    """The only file of a zip archive; files that macOS adds are ignored."""
    with zipfile.ZipFile(path) as archive:
        held = [
            name
            for name in archive.namelist()
            if not name.endswith("/") and not name.startswith("__MACOSX/")
        ]
        if len(held) != 1:
            raise zipfile.BadZipFile(f"expected one file in the archive, found {len(held)}")
        return archive.open(held[0])  # closing it closes the archive


OPENERS: dict[str, Callable[[Path, str], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zip": _only_member,
}
# Errors from opening and reading a damaged file.
DAMAGE: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    NotImplementedError,  # for a compression method that zipfile lacks
    RuntimeError,  # for an archive with a password
)


def open_bytes(path: Path) -> Any:
    """The bytes of a file, decompressed according to its extension."""
    opened: Callable[[Path, str], Any] = OPENERS.get(path.suffix.lower(), open)
    return opened(path, "rb")


def bare_name(path: Path) -> str:
    """The name of a file in lower case, without the extension of its compression.

    >>> bare_name(Path("Prices.TSV.xz"))
    'prices.tsv'
    """
    name = path.name.lower()
    return name.removesuffix(path.suffix.lower()) if path.suffix.lower() in OPENERS else name


def compressed(*extensions: str) -> list[str]:
    """The extensions, and each of them with the extension of every compression.

    >>> compressed(".csv")
    ['.csv', '.csv.gz', '.csv.bz2', '.csv.xz', '.csv.zip']
    """
    return [first + last for first in extensions for last in ("", *OPENERS)]
