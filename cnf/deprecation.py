"""Names of release 0.1 that changed: they work for one more release, with a warning."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

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
        f"{module}.{name} is now {place}.{new}; the old name goes in release 0.3",
        DeprecationWarning,
        stacklevel=3,
    )
    return getattr(import_module(place), new)
