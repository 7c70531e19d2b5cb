"""Pictures of a model: what `cnf plot` draws.

    kinds                        the registry: one `PlotKind` for each picture
    context                      what a picture is drawn from, `PlotContext`
    planar, columns, computation, animations     the drawings

`cnf.plotting` draws arrays; this package evaluates a model and passes the arrays to it. The
registry imports no plotting code, so the command line can list the kinds without torch or
matplotlib.
"""

from cnf.pictures.kinds import KINDS, PlotKind

__all__ = ["KINDS", "PlotKind"]
