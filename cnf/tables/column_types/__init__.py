"""The column types; importing this package registers them.

continuous     real, positive, bounded
integer        multiples of a step, and `heaping`: values that occur far too often
time           dates, times of day, moments, durations; the moments of snapshots
circular       angles, and longitude with latitude
categorical    categories
unmodeled      constants, and columns that are left out
numeric        the common base of types with numbers
"""

# The order of the imports is the order in which help and messages name the types.
from cnf.tables.column_types.continuous import Bounded, Positive, Real  # isort: skip
from cnf.tables.column_types.integer import Integer  # isort: skip
from cnf.tables.column_types.time import Moment, Time  # isort: skip
from cnf.tables.column_types.circular import Angle, Sphere  # isort: skip
from cnf.tables.column_types.categorical import Categorical  # isort: skip
from cnf.tables.column_types.unmodeled import Constant, Ignored  # isort: skip
from cnf.tables.column_types.numeric import NumericType  # isort: skip

__all__ = [
    "Angle",
    "Bounded",
    "Categorical",
    "Constant",
    "Ignored",
    "Integer",
    "Moment",
    "NumericType",
    "Positive",
    "Real",
    "Sphere",
    "Time",
]
