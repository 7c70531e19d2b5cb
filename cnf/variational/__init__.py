"""Variational inference: fit a flow to a density that is known up to its normalizer, without data.

    ENERGIES, Energy    the planar energies U1 to U4 of Rezende and Mohamed (2015)
    LogisticPosterior   the posterior of a Bayesian logistic regression
    PlanarFlow          the discrete baseline for continuous flows
    fit_reverse_kl      minimize KL(q ‖ p) on draws from q
    importance_sample   how far q is from p: weights, effective sample size, Pareto k
    laplace             the Gaussian at the mode, as a starting point

>>> import cnf
>>> flow = cnf.CNF(2, hidden=(8, 8), solver=cnf.Grid.uniform(4, "rk4"))
>>> history = fit_reverse_kl(flow, ENERGIES["U2"].log_density, steps=2, batch=16)
>>> importance_sample(flow, ENERGIES["U2"].log_density, 100).x.shape
torch.Size([100, 2])
"""

from cnf.variational.energies import ENERGIES, Energy
from cnf.variational.importance import Importance, importance_sample, pareto_k
from cnf.variational.planar import PlanarFlow
from cnf.variational.posterior import LogisticPosterior, laplace
from cnf.variational.reverse_kl import LogDensity, Sampler, fit_reverse_kl

__all__ = [
    "ENERGIES",
    "Energy",
    "Importance",
    "LogDensity",
    "LogisticPosterior",
    "PlanarFlow",
    "Sampler",
    "fit_reverse_kl",
    "importance_sample",
    "laplace",
    "pareto_k",
]
