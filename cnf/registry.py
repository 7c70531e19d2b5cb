"""Parts that describe themselves, so that a model file can hold them by name.

A file names classes, and never says where they are imported from: the reader knows the classes that
were registered, and no others.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

REGISTERED: dict[str, type] = {}
Part = TypeVar("Part", bound=type)


def register(cls: Part) -> Part:
    """Class decorator: model files may hold parts of this class, under its name.

    The class says what rebuilds a part with `config()`, by default its constructor's arguments as
    the attributes of the same names, and rebuilds it with `from_config`. Tensors are no part of
    either: parameters and buffers travel with the weights.

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
    """The constructor's arguments of a part but for some others, from the attributes of the same
    names.

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


def described(part: Any) -> dict[str, Any]:
    """What a model file says of a part.

    Raises:
        ValueError: for a part whose class is not registered.
    """
    name = type(part).__name__
    if type(part) not in REGISTERED.values():
        raise ValueError(
            f"a model file cannot rebuild {name}: put @cnf.register above the class, or save the"
            " state_dict() yourself"
        )
    return {"class": name, **part.config()}


def rebuild(kind: type[Any], config: dict[str, Any], *sizes: int) -> Any:
    """The part of some kind that `described` described, for so many columns.

    Raises:
        ValueError: for a class that is not registered, or is of another kind.
    """
    settings = dict(config)
    name = settings.pop("class")
    cls: Any = REGISTERED.get(name)
    if cls is None or not issubclass(cls, kind):
        raise ValueError(
            f"{str(name)[:40]!r} is no registered {kind.__name__}: import the code that registers it"
        )
    return cls.from_config(settings, *sizes)
