"""Problems that know their answers: equations solved in closed form, fields, and flows to try the
laws on."""

import math
from functools import partial

import torch
from torch import Tensor, nn

import cnf
from cnf.fields import ConcatSquashField, GatedField, MLPField, SumField, VelocityField

F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal draws in float64 that do not depend on what a test drew before."""
    return torch.randn(shape, generator=seeded(seed), dtype=F64)


def logistic(t, x):
    """dx/dt = cos(t) x (1 − x): nonlinear and dependent on time."""
    return torch.cos(t) * x * (1 - x)


def logistic_solution(t: float, x0: float) -> float:
    """x/(1 − x) grows as exp(sin t)."""
    odds = x0 / (1 - x0) * math.exp(math.sin(t))
    return odds / (1 + odds)


class LinearField(VelocityField):
    """dx/dt = A x + b + B context: a Gaussian stays a Gaussian."""

    def __init__(self, dim: int = 2, context_dim: int = 0) -> None:
        super().__init__(dim, context_dim)
        self.A = nn.Parameter(0.7 * normal(dim, dim, seed=1))
        self.b = nn.Parameter(normal(dim, seed=2))
        self.B = nn.Parameter(normal(dim, context_dim, seed=3))

    def forward(self, t, x, context=None):
        shift = self.b if context is None else self.b + context @ self.B.T
        return x @ self.A.T + shift + 0 * t[..., None]

    def flow_map(self, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """E and c of x(1) = E z + c, from the exponential of [[A, b], [0, 0]]."""
        dim = self.dim
        shift = self.b if context is None else self.b + self.B @ context
        block = torch.zeros(dim + 1, dim + 1, dtype=F64)
        block[:dim, :dim], block[:dim, dim] = self.A.detach(), shift.detach()
        whole = torch.linalg.matrix_exp(block)
        return whole[:dim, :dim], whole[:dim, dim]

    def gaussian(self, context: Tensor | None = None) -> torch.distributions.MultivariateNormal:
        """The density at t = 1 that starts as a standard normal."""
        E, c = self.flow_map(context)
        return torch.distributions.MultivariateNormal(c, E @ E.T)


def awake(field: VelocityField, scale: float = 0.6) -> VelocityField:
    """The field in float64 with every parameter stirred, so that no part of it is zero or one."""
    field = field.double()
    for k, parameter in enumerate(field.parameters()):
        noise = normal(*parameter.shape, seed=100 + k)
        with torch.no_grad():
            parameter.copy_(
                parameter + scale * noise / math.sqrt(max(parameter.shape[-1:] or (1,)))
            )
    return field


def stirred(flow: cnf.CNF) -> cnf.CNF:
    """The flow with weights that move its particles: a new flow is its base."""
    for parameter in flow.field.parameters():
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return flow


# Fields by name; those of CLOSED have their divergence in closed form.
CLOSED = ("gated-sine", "gated-tanh", "mlp", "sum")
FIELDS = {
    "gated-sine": lambda dim, c: awake(
        GatedField(dim, (12, 10), context_dim=c, frequency=1.0, modulation=8)
    ),
    "gated-tanh": lambda dim, c: awake(
        GatedField(dim, (10, 12), context_dim=c, first="tanh", frequency=1.0, modulation=8)
    ),
    "mlp": lambda dim, c: awake(MLPField(dim, (12, 12), context_dim=c)),
    "sum": lambda dim, c: awake(
        SumField(
            [GatedField(dim, (8, 6), context_dim=c, frequency=f, modulation=4) for f in (0.5, 2.0)]
            + [MLPField(dim, (6, 6), context_dim=c)]
        ),
        scale=0.3,
    ),
    "mlp-silu": lambda dim, c: awake(MLPField(dim, (10,), context_dim=c, activation="silu")),
    "concatsquash": lambda dim, c: awake(
        ConcatSquashField(dim, (12, 12), context_dim=c, activation="softplus")
    ),
    "linear": lambda dim, c: LinearField(dim, c),
}


def make_field(name: str, dim: int = 2, context_dim: int = 0) -> VelocityField:
    torch.manual_seed(7)
    return FIELDS[name](dim, context_dim)


def make_flow(name: str = "gated-sine", dim: int = 2, context_dim: int = 0, **parts) -> cnf.CNF:
    """A float64 flow over one of FIELDS with a transport that is far from the identity."""
    parts.setdefault("solver", cnf.Grid.uniform(24))
    return cnf.CNF(
        dim, context_dim=context_dim, field=make_field(name, dim, context_dim), **parts
    ).double()


def jacobian_trace(field: VelocityField, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
    """tr ∂v/∂x row by row from the full Jacobian: slow and independent of every estimator."""
    shape = x.shape[:-1]
    rows = x.reshape(-1, x.shape[-1])
    times = t.expand(shape).reshape(-1)
    contexts = None if context is None else context.expand(*shape, -1).reshape(len(rows), -1)

    def at(t: Tensor, given: Tensor | None, y: Tensor) -> Tensor:
        return field(t, y, given)

    traces = []
    for k, row in enumerate(rows):
        given = None if contexts is None else contexts[k]
        jacobian = torch.autograd.functional.jacobian(partial(at, times[k], given), row)
        traces.append(jacobian.trace())
    return torch.stack(traces).reshape(shape)
