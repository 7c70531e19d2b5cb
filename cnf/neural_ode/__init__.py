"""Neural ordinary differential equations: layers of continuous depth.

ODEBlock            a layer whose output is the solution of an ODE, for nn.Sequential
CallCounter         how often a module is evaluated, forwards and backwards
adjoint             ∂L/∂z(t) along a solution, with the gradients of parameters and end times
"""

from cnf.neural_ode.adjoint import Adjoint, adjoint
from cnf.neural_ode.block import CallCounter, ODEBlock

__all__ = ["Adjoint", "CallCounter", "ODEBlock", "adjoint"]
