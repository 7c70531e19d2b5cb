"""Flows: a base density carried to the data by an ordinary differential equation.

CNF                 the flow: log_prob, sample, trajectory, evaluate, calibrate, save
AugmentedCNF        a flow over data and noise, with a lower bound of its density
FlowDistribution    a flow bound to a context, a torch distribution
NormalBase, StudentTBase, MixtureBase, ContaminatedBase    base densities
Hutchinson          the stochastic estimate of the divergence
"""

from __future__ import annotations

from typing import Any

from cnf.deprecation import renamed
from cnf.flows.augmented import AugmentedCNF
from cnf.flows.bases import Base, ContaminatedBase, MixtureBase, NormalBase, StudentTBase
from cnf.flows.distribution import FlowDistribution
from cnf.flows.divergence import Hutchinson
from cnf.flows.flow import CNF, Evaluation
from cnf.flows.loading import load
from cnf.flows.model_file import ModelFileError

__all__ = [
    "CNF",
    "AugmentedCNF",
    "Base",
    "ContaminatedBase",
    "Evaluation",
    "FlowDistribution",
    "Hutchinson",
    "MixtureBase",
    "ModelFileError",
    "NormalBase",
    "StudentTBase",
    "load",
]


def __getattr__(name: str) -> Any:
    found = renamed(__name__, name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
