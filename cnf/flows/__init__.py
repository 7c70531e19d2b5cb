"""Flows: a base density carried to the data by an ordinary differential equation.

CNF                 the flow: log_prob, sample, trajectory, evaluate, calibrate, save
AugmentedCNF        a flow over data and noise, with a lower bound of its density
BoundFlow           a flow bound to a context and to options of its solves
FlowDistribution    the same as a torch distribution
NormalBase, StudentTBase, MixtureBase, ContaminatedBase    base densities
UniformCircleBase, VonMisesBase, UniformSphereBase, VonMisesFisherBase, ProductBase
                    of angles, unit vectors, and blocks of columns
SnapshotFlow        the density of rows at any time between snapshots
GrowingFlow         the same, of mass that grows on its way
SourceBase          the density of a fitted flow as a base
DistributionBase    a torch distribution as a base
ErrorModel          how estimates of a solver's error become error bounds
Hutchinson          the stochastic estimate of the divergence
importance_weights  of rows of one density that stand for rows of another
"""

from __future__ import annotations

from typing import Any

from cnf.deprecation import renamed
from cnf.flows.augmented import AugmentedCNF
from cnf.flows.bases import Base, ContaminatedBase, MixtureBase, NormalBase, StudentTBase
from cnf.flows.bound import BoundFlow
from cnf.flows.distribution import FlowDistribution, kl_estimate
from cnf.flows.distribution_base import DistributionBase
from cnf.flows.divergence import Hutchinson
from cnf.flows.error_model import ErrorModel
from cnf.flows.flow import CNF
from cnf.flows.growing_flow import GrowingFlow
from cnf.flows.loading import load
from cnf.flows.model_file import ModelFileError
from cnf.flows.periodic_bases import (
    UniformCircleBase,
    UniformSphereBase,
    VonMisesBase,
    VonMisesFisherBase,
)
from cnf.flows.product_base import ProductBase
from cnf.flows.questions.importance import importance_weights
from cnf.flows.questions.question import Answer
from cnf.flows.questions.subset_density import DoubtfulWarning, SubsetDensity
from cnf.flows.scoring import Evaluation, UnsolvedWarning
from cnf.flows.snapshot_flow import SnapshotFlow
from cnf.flows.source_base import SourceBase

__all__ = [
    "CNF",
    "Answer",
    "AugmentedCNF",
    "Base",
    "BoundFlow",
    "ContaminatedBase",
    "DistributionBase",
    "DoubtfulWarning",
    "ErrorModel",
    "Evaluation",
    "FlowDistribution",
    "GrowingFlow",
    "Hutchinson",
    "MixtureBase",
    "ModelFileError",
    "NormalBase",
    "ProductBase",
    "SnapshotFlow",
    "SourceBase",
    "StudentTBase",
    "SubsetDensity",
    "UniformCircleBase",
    "UniformSphereBase",
    "UnsolvedWarning",
    "VonMisesBase",
    "VonMisesFisherBase",
    "importance_weights",
    "kl_estimate",
    "load",
]


def __getattr__(name: str) -> Any:
    found = renamed(__name__, name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
