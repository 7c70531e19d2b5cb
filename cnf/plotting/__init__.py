"""Pictures: arrays and callables in, matplotlib Axes out.

    density, density_history, samples      densities and points in the plane
    marginals, pairs                       tables of many columns
    trajectories, field                    particles and the velocity that carries them
    history                                the course of a training
    pit, calibration                       ranks of rows among draws, coverage of regions
    animate, flow_film                     films
    figure, save, limits, density_grid     what these are made of

Arrays are of numpy or torch; densities and velocities are callables on tensors of points (n, 2). Every
function draws on the axes it is given, or on a figure of its own (`ax.figure`), which pyplot does not know;
the style holds while a picture is drawn and changes no global setting.
"""

from cnf.plotting.columns import marginals, pairs
from cnf.plotting.densities import density, density_grid, density_history, samples
from cnf.plotting.film import animate, flow_film
from cnf.plotting.motion import field, trajectories
from cnf.plotting.progress import history
from cnf.plotting.ranks import calibration, pit
from cnf.plotting.style import figure, limits, save

__all__ = [
    "animate",
    "calibration",
    "density",
    "density_grid",
    "density_history",
    "field",
    "figure",
    "flow_film",
    "history",
    "limits",
    "marginals",
    "pairs",
    "pit",
    "samples",
    "save",
    "trajectories",
]
