"""Flows: a base density carried to the data by an ordinary differential equation.

CNF                 the flow: log_prob, sample, trajectory, evaluate, calibrate, save
AugmentedCNF        a flow over data and noise, with a lower bound of its density
FlowDistribution    a flow bound to a context, a torch distribution
Affine, Gaussianize, Support, Chain    maps between the units of the data and the coordinates of the flow
NormalBase, StudentTBase, MixtureBase, ContaminatedBase    base densities
Hutchinson          the stochastic estimate of the divergence
"""

from cnf.flows.augmented import AugmentedCNF
from cnf.flows.bases import Base, ContaminatedBase, MixtureBase, NormalBase, StudentTBase
from cnf.flows.distribution import FlowDistribution
from cnf.flows.divergence import Hutchinson
from cnf.flows.flow import CNF, Evaluation
from cnf.flows.gaussianization import Gaussianize
from cnf.flows.loading import load
from cnf.flows.model_file import ModelFileError
from cnf.flows.preprocessing import Affine, Chain, Preprocess
from cnf.flows.support import Range, Support

__all__ = [
    "CNF",
    "Affine",
    "AugmentedCNF",
    "Base",
    "Chain",
    "ContaminatedBase",
    "Evaluation",
    "FlowDistribution",
    "Gaussianize",
    "Hutchinson",
    "MixtureBase",
    "ModelFileError",
    "NormalBase",
    "Preprocess",
    "Range",
    "StudentTBase",
    "Support",
    "load",
]
