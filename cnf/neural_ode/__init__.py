"""Neural ordinary differential equations: layers of continuous depth, and series in continuous
time.

ODEBlock            a layer whose output is the solution of an ODE, for nn.Sequential
CallCounter         how often a module is evaluated, forwards and backwards
adjoint             ∂L/∂z(t) along a solution, with the gradients of parameters and end times
Series              irregular series in a batch: unequal times, missing channels
LatentODE           a generative model of such series; fit_latent_ode trains it, lower_bound is its objective,
                    agreement ties its path to what is read later
"""

from cnf.neural_ode.adjoint import Adjoint, adjoint
from cnf.neural_ode.block import CallCounter, ODEBlock
from cnf.neural_ode.latent_objective import Bound, agreement, fit_latent_ode, lower_bound
from cnf.neural_ode.latent_ode import LatentODE, Prediction
from cnf.neural_ode.latent_series import Series

__all__ = [
    "Adjoint",
    "Bound",
    "CallCounter",
    "LatentODE",
    "ODEBlock",
    "Prediction",
    "Series",
    "adjoint",
    "agreement",
    "fit_latent_ode",
    "lower_bound",
]
