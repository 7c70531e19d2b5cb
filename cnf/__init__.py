"""Continuous normalizing flows: densities that are exact, fast and can be checked.

A flow carries a simple base density at t = 0 to the data at t = 1 by an ordinary differential equation,
dx/dt = v(t, x, context). The density moves with it (the instantaneous change of variables),

    log p(x) = log p₀(z) − ∫₀¹ tr ∂v/∂x dt,        x = x(1), z = x(0).

    import cnf
    flow = cnf.CNF(dim=2)
    history = cnf.fit(flow, x, seconds=60)         # flow matching, then maximum likelihood
    flow.log_prob(x)                               # exact, row by row, in nats and the units of x
    flow.sample((1000,))
    flow.trajectory(z, torch.linspace(0, 1, 50))   # particles on their way from base to data

Shapes: x (*batch, dim), context (*batch, context_dim), log_prob (*batch,), trajectory (time, *batch, dim).
Gradients of a solve: `gradient="discrete"`, "adjoint" or "direct". All randomness is torch's.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnf.estimator import CNFDensity
    from cnf.fields import ConcatSquashField, GatedField, MaskedField, MLPField, SumField, VelocityField
    from cnf.flows import (
        CNF,
        Affine,
        AugmentedCNF,
        Chain,
        ContaminatedBase,
        Gaussianize,
        Hutchinson,
        MixtureBase,
        ModelFileError,
        NormalBase,
        StudentTBase,
        Support,
    )
    from cnf.neural_ode import ODEBlock
    from cnf.ode import Grid, Torchdiffeq
    from cnf.tables import Column, Schema, TableError, TableFlow, load
    from cnf.training import History, TrainingError, fit, fit_table

__version__ = "0.1.0"
__all__ = [
    "CNF",
    "Affine",
    "AugmentedCNF",
    "CNFDensity",
    "Chain",
    "Column",
    "ConcatSquashField",
    "ContaminatedBase",
    "GatedField",
    "Gaussianize",
    "Grid",
    "History",
    "Hutchinson",
    "MLPField",
    "MaskedField",
    "MixtureBase",
    "ModelFileError",
    "NormalBase",
    "ODEBlock",
    "Schema",
    "StudentTBase",
    "SumField",
    "Support",
    "TableError",
    "TableFlow",
    "Torchdiffeq",
    "TrainingError",
    "VelocityField",
    "fit",
    "fit_table",
    "load",
]

_ROOMS = {
    "estimator": ("CNFDensity",),
    "fields": ("ConcatSquashField", "GatedField", "MLPField", "MaskedField", "SumField", "VelocityField"),
    "flows": (
        "CNF",
        "Affine",
        "AugmentedCNF",
        "Chain",
        "ContaminatedBase",
        "Gaussianize",
        "Hutchinson",
        "MixtureBase",
        "ModelFileError",
        "NormalBase",
        "StudentTBase",
        "Support",
    ),
    "neural_ode": ("ODEBlock",),
    "ode": ("Grid", "Torchdiffeq"),
    "tables": ("Column", "Schema", "TableError", "TableFlow", "load"),
    "training": ("History", "TrainingError", "fit", "fit_table"),
}


def __getattr__(name: str) -> Any:
    # torch is slow to load, scikit-learn slower: only who asks for them waits, and `cnf --help` does not.
    for room, names in _ROOMS.items():
        if name in names:
            return globals().setdefault(name, getattr(import_module(f"cnf.{room}"), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
