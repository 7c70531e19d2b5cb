"""Neural ordinary differential equations: layers of continuous depth.

ODEBlock            a layer whose output is the solution of an ODE, for nn.Sequential
CallCounter         how often a module is evaluated, forwards and backwards
"""

from cnf.neural_ode.block import CallCounter, ODEBlock

__all__ = ["CallCounter", "ODEBlock"]
