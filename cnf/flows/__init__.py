"""Flows: a base density carried to the data by an ordinary differential equation.

CNF                 the flow: log_prob, sample, trajectory, evaluate, calibrate, save
FlowDistribution    a flow bound to a context, a torch distribution
Affine              the map between the units of the data and the coordinates of the flow
NormalBase, StudentTBase, MixtureBase    base densities
Hutchinson          the stochastic estimate of the divergence
"""

from cnf.flows.bases import Base, MixtureBase, NormalBase, StudentTBase
from cnf.flows.distribution import FlowDistribution
from cnf.flows.divergence import Hutchinson
from cnf.flows.flow import CNF, Evaluation
from cnf.flows.loading import load
from cnf.flows.model_file import ModelFileError
from cnf.flows.preprocessing import Affine

__all__ = [
    "CNF",
    "Affine",
    "Base",
    "Evaluation",
    "FlowDistribution",
    "Hutchinson",
    "MixtureBase",
    "ModelFileError",
    "NormalBase",
    "StudentTBase",
    "load",
]
