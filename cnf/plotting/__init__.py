"""Plots of arrays and callables, as matplotlib Axes.

    density, density_history, samples      densities and points in the plane
    marginals, pairs                       tables of many columns
    rose                                   angles around a circle
    sphere_map, sphere_points              densities and places on a sphere
    slices, conditional                    densities of many columns, cut along one or across two
    what_if                                columns against a context that is swept
    trajectories, field                    particles and the velocity that carries them
    principal_axes                         the plane to watch particles of many columns in
    steps                                  lengths and errors of the steps of a solve
    history                                the course of a training
    pit, calibration                       ranks of rows among draws, coverage of regions
    animate, flow_animation, globe_animation     animations
    figure, sphere_figure, save, limits, density_grid     what these are made of

Arrays are of numpy or torch; densities and velocities are callables on tensors of points (n, 2).
Every function draws on the given axes, or on a new figure (`ax.figure`) that is independent of
pyplot. The style applies only while a plot is drawn, and changes no global setting.
"""

from __future__ import annotations

from typing import Any

from cnf.deprecation import renamed
from cnf.plotting.animations import animate, flow_animation
from cnf.plotting.circles import rose
from cnf.plotting.columns import marginals, pairs
from cnf.plotting.densities import density, density_grid, density_history, samples
from cnf.plotting.motion import field, principal_axes, trajectories
from cnf.plotting.progress import history
from cnf.plotting.ranks import calibration, pit
from cnf.plotting.slices import conditional, slices
from cnf.plotting.solver_steps import steps
from cnf.plotting.spheres import globe_animation, sphere_figure, sphere_map, sphere_points
from cnf.plotting.style import figure, limits, save
from cnf.plotting.what_if import what_if

__all__ = [
    "animate",
    "calibration",
    "conditional",
    "density",
    "density_grid",
    "density_history",
    "field",
    "figure",
    "flow_animation",
    "globe_animation",
    "history",
    "limits",
    "marginals",
    "pairs",
    "pit",
    "principal_axes",
    "rose",
    "samples",
    "save",
    "slices",
    "sphere_figure",
    "sphere_map",
    "sphere_points",
    "steps",
    "trajectories",
    "what_if",
]


def __getattr__(name: str) -> Any:
    found = renamed(__name__, name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
