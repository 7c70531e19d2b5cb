"""Parts that describe themselves, so that a model file can hold them by name.

A file names classes, but loading it imports nothing: the reader knows the registered classes and
those passed to it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

REGISTERED: dict[str, type] = {}
# Classes by their import path, while a file is read.
_GIVEN: ContextVar[dict[str, type]] = ContextVar("given")
Part = TypeVar("Part", bound=type)


def register(cls: Part) -> Part:
    """Class decorator: model files may contain parts of this class, under its name.

    `config()` returns the settings that rebuild a part, by default its constructor's arguments
    from the attributes of the same names, and `from_config` rebuilds it. Neither includes tensors:
    parameters and buffers are stored with the weights.

    Raises:
        ValueError: if another class has the name.

    Example:
        >>> from cnf.fields import VelocityField
        >>> @register
        ... class Decay(VelocityField):
        ...     def __init__(self, dim, rate, *, context_dim=0):
        ...         super().__init__(dim, context_dim)
        ...         self.rate = rate
        ...     def forward(self, t, x, context=None):
        ...         return -self.rate * x
        >>> described(Decay(2, 0.5))
        {'class': 'Decay', 'rate': 0.5}
    """
    known = REGISTERED.setdefault(cls.__name__, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(
            f"register: the name {cls.__name__} is taken by {known.__module__}; choose another"
        )
    REGISTERED[cls.__name__] = cls
    return cls


def arguments(part: Any, *others: str) -> dict[str, Any]:
    """The constructor's arguments of a part, except some, from the attributes of the same names.

    Raises:
        ValueError: for an argument that the part does not keep.
    """
    names = [name for name in inspect.signature(type(part)).parameters if name not in others]
    if lost := [name for name in names if not hasattr(part, name)]:
        raise ValueError(
            f"{type(part).__name__} keeps no attribute {lost[0]!r} for the argument of its"
            " constructor: keep it, or write config() and from_config()"
        )
    return {name: getattr(part, name) for name in names}


@contextmanager
def known_classes(classes: Iterable[type]) -> Iterator[None]:
    """Temporarily allow parts of these classes in model files, by their import path."""
    token = _GIVEN.set({import_path(cls): cls for cls in classes})
    try:
        yield
    finally:
        _GIVEN.reset(token)


def import_path(cls: type) -> str:
    """The import path of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def described(part: Any) -> dict[str, Any]:
    """The description of a part in a model file: the name of its class (the import path if it is
    not registered) and its settings.

    Raises:
        ValueError: for a part that does not keep its settings.
    """
    cls = type(part)
    name = cls.__name__ if REGISTERED.get(cls.__name__) is cls else import_path(cls)
    settings = part.config() if hasattr(part, "config") else arguments(part)
    return {"class": name, **settings}


def rebuild(kind: type[Any], config: dict[str, Any], *sizes: int) -> Any:
    """The part from the result of `described`, for a number of columns.

    Raises:
        ValueError: for a class that is neither registered nor given, or is of another kind.
    """
    settings = dict(config)
    name = settings.pop("class")
    cls: Any = REGISTERED.get(name) or _GIVEN.get({}).get(name)
    if cls is None or not issubclass(cls, kind):
        raise ValueError(
            f"{str(name)[:60]!r} is not a registered {kind.__name__}: import the code that registers it, or"
            " pass the class to the loader, cnf.load(path, classes=[...])"
        )
    return cls.from_config(settings, *sizes) if hasattr(cls, "from_config") else cls(**settings)
