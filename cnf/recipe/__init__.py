"""The recipe: every measured choice of a fit, and `fit` and `fit_table`, which follow it.

defaults                                   one table of numbers, each with its reason
architecture, transforms, bases            the flow before training
pilot_fits                                 short fits that decide between transforms
gaussian_mixtures, stacking                the baselines that a flow has to beat
mixture_fallback                           what happens where it does not
fit, tables                                the story of a fit
"""

from cnf.recipe.architecture import default_flow, default_table_flow
from cnf.recipe.fit import fit
from cnf.recipe.tables.fit import InterruptedFit, fit_table, fit_table_flow

__all__ = [
    "InterruptedFit",
    "default_flow",
    "default_table_flow",
    "fit",
    "fit_table",
    "fit_table_flow",
]
