"""Parts from outside the package: registries, and the modules that add to them.

A module adds its parts when it is imported:

    from cnf.pictures import KINDS, PlotKind
    KINDS.add(PlotKind("columns", "how many columns there are", draw=draw))

The command line imports the modules named by entry points of the group "cnf.plugins" and by the
environment variable CNF_PLUGINS, which holds module names or paths of .py files, separated by
commas. A Python program calls `cnf.plugins.load()`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Generic, Protocol, TypeVar

GROUP, VARIABLE = "cnf.plugins", "CNF_PLUGINS"


class PluginError(ValueError):
    """A plugin cannot be imported."""


class Named(Protocol):
    """A part that a registry can hold."""

    @property
    def name(self) -> str:
        """The name of the part, unique within its registry."""


Part = TypeVar("Part", bound=Named)


class Registry(Generic[Part]):
    """Parts by name, in the order in which they were added.

    Args:
        what: the noun for a part in messages.
        parts: the built-in ones.

    Example:
        >>> from types import SimpleNamespace
        >>> shapes = Registry("shape", [SimpleNamespace(name="circle")])
        >>> shapes.add(SimpleNamespace(name="square")).name, shapes.names
        ('square', ['circle', 'square'])
    """

    def __init__(self, what: str, parts: Iterable[Part] = ()) -> None:
        self.what = what
        self._parts: dict[str, Part] = {}
        for part in parts:
            self.add(part)

    def add(self, part: Part) -> Part:
        """Add a part, and return it.

        Raises:
            ValueError: if the registry holds another part of that name.
        """
        if part.name in self._parts:
            raise ValueError(f"there is a {self.what} {part.name!r} already; choose another name")
        self._parts[part.name] = part
        return part

    def remove(self, name: str) -> None:
        """Remove the part with this name."""
        del self._parts[name]

    @property
    def names(self) -> list[str]:
        """The names of all parts."""
        return list(self._parts)

    def __getitem__(self, name: str) -> Part:
        if name not in self._parts:
            known = ", ".join(self._parts)
            raise ValueError(f"unknown {self.what} {name!r}; expected one of {known}")
        return self._parts[name]

    def __iter__(self) -> Iterator[Part]:
        return iter(self._parts.values())

    def __len__(self) -> int:
        return len(self._parts)


def load() -> None:
    """Import every plugin that is not yet imported.

    Raises:
        PluginError: for a plugin that cannot be imported, with the reason.
    """
    listed = os.environ.get(VARIABLE, "").split(",")
    installed = [entry.value.partition(":")[0] for entry in entry_points(group=GROUP)]
    for name in [*installed, *(word.strip() for word in listed)]:
        if name:
            _load(name)


def _load(name: str) -> None:
    try:
        if name.endswith(".py"):
            _load_file(Path(name).resolve())
        else:
            import_module(name)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(
            f"plugin {name!r} cannot be imported ({reason}); correct it, or remove it from {VARIABLE}"
        ) from error


def _load_file(path: Path) -> None:
    """Import a file under its path, so that files of one name in two folders are two modules."""
    name = str(path)
    if name in sys.modules:
        return
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
