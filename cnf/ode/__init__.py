"""Integration of ordinary differential equations and gradients of their solutions.

    solve            dx/dt = f(t, x) by any solver
    Grid             fixed times: euler, midpoint, rk4; dopri5 and adams with estimates of their error
    Torchdiffeq      the adaptive and fixed-step solvers of torchdiffeq
    Solver, Method   what a solver, or a method of a grid, of your own implements
    System           a velocity with quadratures; Solution, what a solver returns

A gradient of a solve is "direct" (backpropagation through every step), "discrete" (the adjoint of
the discretized equation, one step at a time) or "adjoint" (the continuous adjoint equation).
"""

from cnf.ode.grid import METHODS, Grid, place
from cnf.ode.method import Method
from cnf.ode.solve import solve
from cnf.ode.solver import Solver
from cnf.ode.system import Gradient, Solution, SolverError, System, SystemAt, tensor_like
from cnf.ode.torchdiffeq import Torchdiffeq

__all__ = [
    "METHODS",
    "Gradient",
    "Grid",
    "Method",
    "Solution",
    "Solver",
    "SolverError",
    "System",
    "SystemAt",
    "Torchdiffeq",
    "place",
    "solve",
    "tensor_like",
]
