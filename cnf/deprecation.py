"""Names of release 0.1 that changed: they work for one more release, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

# Module -> old name -> where it is now.
RENAMED = {
    "cnf": {"Support": "cnf.transforms:BoundedToReal"},
    "cnf.flows": {
        "Support": "cnf.transforms:BoundedToReal",
        "Preprocess": "cnf.transforms:Transform",
        "Range": "cnf.transforms:Range",
        "Affine": "cnf.transforms:Affine",
        "Chain": "cnf.transforms:Chain",
        "Gaussianize": "cnf.transforms:Gaussianize",
    },
    "cnf.training": {
        "fit": "cnf.recipe:fit",
        "fit_table": "cnf.recipe:fit_table",
        "descend": "cnf.training:minimize",
        "Regularisers": "cnf.training:Regularizers",
    },
    "cnf.diagnostics": {"Claim": "cnf.diagnostics:CheckResult"},
    "cnf.plotting": {"flow_film": "cnf.plotting:flow_animation"},
}


def renamed(module: str, name: str) -> Any:
    """The object that `name` of a module was renamed to, with a DeprecationWarning; None for other
    names."""
    target = RENAMED[module].get(name)
    if target is None:
        return None
    place, _, new = target.partition(":")
    warnings.warn(
        f"{module}.{name} is now {place}.{new}; the old name will be removed in release 0.3",
        DeprecationWarning,
        stacklevel=3,
    )
    return getattr(import_module(place), new)


class RenamedAttribute:
    """The old name of an attribute of a class: it works, with a DeprecationWarning.

    Args:
        new: the name since.
    """

    def __init__(self, new: str) -> None:
        self.new = new

    def __set_name__(self, owner: type, name: str) -> None:
        self.names = f"{owner.__name__}.{name}", f"{owner.__name__}.{self.new}"

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        warn_renamed(*self.names)
        return getattr(instance, self.new)

    def __set__(self, instance: Any, value: Any) -> None:
        warn_renamed(*self.names)
        setattr(instance, self.new, value)


def warn_renamed(old: str, new: str) -> None:
    """Say that a name, used by the caller's caller, has changed."""
    warnings.warn(
        f"{old} is now {new}; the old name will be removed in release 0.3",
        DeprecationWarning,
        stacklevel=3,
    )


def renamed_argument(old: str, new: str) -> Callable[[Function], Function]:
    """Decorator: the function takes an argument by its old name too, with a DeprecationWarning.

    Example:
        >>> @renamed_argument("colour", "color")
        ... def paint(*, color):
        ...     return color
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     paint(colour="red")
        'red'
    """

    def decorate(function: Function) -> Function:
        @wraps(function)
        def called(*arguments: Any, **named: Any) -> Any:
            if old in named:
                warn_renamed(f"the argument {old}", new)
                named[new] = named.pop(old)
            return function(*arguments, **named)

        return cast("Function", called)

    return decorate


def removed_argument(name: str, now: str) -> Callable[[Function], Function]:
    """Decorator: the function takes an argument that does nothing any more, with a
    DeprecationWarning.

    Args:
        name: of the argument.
        now: what holds without it.
    """

    def decorate(function: Function) -> Function:
        @wraps(function)
        def called(*arguments: Any, **named: Any) -> Any:
            if name in named:
                del named[name]
                warnings.warn(
                    f"the argument {name} is not needed: {now}; it will be removed in release 0.3",
                    DeprecationWarning,
                    stacklevel=2,
                )
            return function(*arguments, **named)

        return cast("Function", called)

    return decorate
