"""Data to try and to measure on.

`toys` has eight planar densities with exact log-densities, `spirals` draws curves in time. Two
submodules
with heavier dependencies are imported by name: `cnf.datasets.benchmarks` loads POWER, GAS,
HEPMASS, MINIBOONE and BSDS300 from files that the user has, `cnf.datasets.bundled` the small
tables that come with scikit-learn.

>>> toy("8gaussians").sample(5).shape
torch.Size([5, 2])
"""

from cnf.datasets.planar import Toy
from cnf.datasets.spirals import spirals
from cnf.datasets.toys import TOYS, toy

__all__ = ["TOYS", "Toy", "spirals", "toy"]
