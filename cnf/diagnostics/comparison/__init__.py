"""How far two tables are apart: a real one and a synthetic one, whoever made it.

    compare, Comparison, Measure     all measures at once, and what they found
    TablePair                        the two tables, column by column
    shape, trend                     columns and pairs of columns, as sdmetrics measures them
    detection                        whether a classifier tells the tables apart
    coverage, records                where the rows lie, and how near to real ones
    efficacy                         what a model learns from synthetic rows
    constraints                      orders of columns that real rows keep

Every measure is a function of a `TablePair`; nothing here knows a flow.
"""

from cnf.diagnostics.comparison.compare import Comparison, compare
from cnf.diagnostics.comparison.measure import Measure
from cnf.diagnostics.comparison.pair import TablePair

__all__ = ["Comparison", "Measure", "TablePair", "compare"]
