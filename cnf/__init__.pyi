from . import datasets as datasets
from . import diagnostics as diagnostics
from . import fields as fields
from . import flows as flows
from . import integrations as integrations
from . import neural_ode as neural_ode
from . import ode as ode
from . import plotting as plotting
from . import recipe as recipe
from . import report as report
from . import tables as tables
from . import training as training
from . import transforms as transforms
from . import variational as variational
from .estimator import CNFDensity as CNFDensity
from .fields import (
    ConcatSquashField as ConcatSquashField,
)
from .fields import (
    GatedField as GatedField,
)
from .fields import (
    MaskedField as MaskedField,
)
from .fields import (
    MLPField as MLPField,
)
from .fields import (
    SumField as SumField,
)
from .fields import (
    VelocityField as VelocityField,
)
from .flows import (
    CNF as CNF,
)
from .flows import (
    AugmentedCNF as AugmentedCNF,
)
from .flows import (
    Base as Base,
)
from .flows import (
    ContaminatedBase as ContaminatedBase,
)
from .flows import (
    GrowingFlow as GrowingFlow,
)
from .flows import (
    Hutchinson as Hutchinson,
)
from .flows import (
    MixtureBase as MixtureBase,
)
from .flows import (
    ModelFileError as ModelFileError,
)
from .flows import (
    NormalBase as NormalBase,
)
from .flows import (
    SnapshotFlow as SnapshotFlow,
)
from .flows import (
    StudentTBase as StudentTBase,
)
from .neural_ode import ODEBlock as ODEBlock
from .ode import Grid as Grid
from .ode import Solver as Solver
from .ode import Torchdiffeq as Torchdiffeq
from .recipe import default_flow as default_flow
from .recipe import fit as fit
from .recipe import fit_snapshots as fit_snapshots
from .recipe import fit_table as fit_table
from .registry import register as register
from .scale import Scorer as Scorer
from .tables import (
    Column as Column,
)
from .tables import (
    Schema as Schema,
)
from .tables import (
    TableError as TableError,
)
from .tables import (
    TableFlow as TableFlow,
)
from .tables import (
    load as load,
)
from .training import History as History
from .training import TrainingError as TrainingError
from .transforms import (
    Affine as Affine,
)
from .transforms import (
    BoundedToReal as BoundedToReal,
)
from .transforms import (
    Chain as Chain,
)
from .transforms import (
    Gaussianize as Gaussianize,
)

__version__: str
