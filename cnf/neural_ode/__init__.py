"""Neural ordinary differential equations: layers of continuous depth, series in continuous time.

ODEBlock            a layer whose output is the solution of an ODE, for nn.Sequential
CallCounter         counts the evaluations of a module, forward and backward
adjoint             ∂L/∂z(t) along a solution, with the gradients of parameters and end times
Series              a batch of irregular series: unequal times, missing channels
LatentODE           a generative model of such series
fit_latent_ode      trains it by `lower_bound`, optionally with `agreement`
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
