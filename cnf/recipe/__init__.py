"""The recipe: every measured choice of a fit, and `fit` and `fit_table`, which apply it.

defaults                                every number, with its reason
settings                                the settings of a fit, from the defaults and the user
architecture, transforms, bases         the flow before training
preparation, pilot_fits                 choices made before the first training step
gaussian_mixtures, mixture_baseline     mixtures that a flow has to beat
stacking                                mixtures of few rows, stacked by cross-validation
mixture_fallback                        the mixture that replaces a flow which does not beat it
snapshot_mass                           mass that is constant, or grows, between snapshots
fit, source, snapshots, tables          the fits themselves
"""

from cnf.recipe.architecture import default_flow, default_table_flow
from cnf.recipe.fit import fit
from cnf.recipe.settings import FitSettings
from cnf.recipe.snapshots import fit_snapshots
from cnf.recipe.tables.fit import InterruptedFit, fit_table
from cnf.recipe.tables.model_fit import fit_table_flow

__all__ = [
    "FitSettings",
    "InterruptedFit",
    "default_flow",
    "default_table_flow",
    "fit",
    "fit_snapshots",
    "fit_table",
    "fit_table_flow",
]
