"""Transforms: invertible maps between the units of the data and the coordinates of a flow.

Affine, Chain                        whitening and standardizing; one transform after another
Gaussianize                          monotone splines, column by column
BoundedToReal                        columns with a lower or upper end
Charts                               angles, and longitude with latitude
MarginalTransform, Whitening         typed tables: quantiles of mixtures, a Gaussian a pattern of cells
GroupedWhitening                     the same with a Gaussian for each level of a category
ConditionalMixture                   any columns given any others, by a mixture of all of them
Float64Module                        a module that keeps float64 whatever the flow computes in
"""

from cnf.transforms.affine import Affine, Chain, Transform
from cnf.transforms.bounded import BoundedToReal, Range
from cnf.transforms.charts import Charts
from cnf.transforms.conditional import ConditionalMixture
from cnf.transforms.float64 import Float64Module
from cnf.transforms.gaussianize import Gaussianize
from cnf.transforms.grouped_whitening import GroupedWhitening
from cnf.transforms.marginals import MarginalTransform
from cnf.transforms.whitening import Whitening

__all__ = [
    "Affine",
    "BoundedToReal",
    "Chain",
    "Charts",
    "ConditionalMixture",
    "Float64Module",
    "Gaussianize",
    "GroupedWhitening",
    "MarginalTransform",
    "Range",
    "Transform",
    "Whitening",
]
