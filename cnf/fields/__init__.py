"""Velocity fields v(t, x, context): the right-hand sides of flows.

VelocityField       the base class: what a field of your own implements
GatedField          two gated hidden layers, divergence in closed form (the default)
MaskedField         the same, over the present columns of each row
MLPField            any number of hidden layers
ConcatSquashField   the layers of FFJORD (Grathwohl et al. 2019)
SumField            the sum of fields
DisplacementField   the motion of optimal transport between Gaussians
LinearMotion        the same through several Gaussians
GrowingField        a motion whose mass grows at a rate of its own
ThroughTime         a field run up to the time of each row
Geometry            the space of a field: real columns, angles, unit vectors
"""

from cnf.fields.base import AT_REST, BoundField, FieldAt, VelocityField
from cnf.fields.displacement import DisplacementField
from cnf.fields.gated import GatedField
from cnf.fields.geometry import Geometry
from cnf.fields.growing import GrowingField, Growth
from cnf.fields.linear_motion import LinearMotion
from cnf.fields.masked import MaskedField
from cnf.fields.networks import ConcatSquashField, MLPField
from cnf.fields.sums import SumField
from cnf.fields.through_time import ThroughTime

__all__ = [
    "AT_REST",
    "BoundField",
    "ConcatSquashField",
    "DisplacementField",
    "FieldAt",
    "GatedField",
    "Geometry",
    "GrowingField",
    "Growth",
    "LinearMotion",
    "MLPField",
    "MaskedField",
    "SumField",
    "ThroughTime",
    "VelocityField",
]
