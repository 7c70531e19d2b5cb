"""Continuous normalizing flows: densities that are exact, fast and can be checked.

A flow carries a simple base density at t = 0 to the data at t = 1 by an ordinary differential
equation, dx/dt = v(t, x, context). The density moves with it (the instantaneous change of
variables),

    log p(x) = log p₀(z) − ∫₀¹ tr ∂v/∂x dt,        x = x(1), z = x(0).

    import cnf
    flow = cnf.CNF(dim=2)
    history = cnf.fit(flow, x, seconds=60)         # flow matching, then maximum likelihood
    flow.log_prob(x)                               # exact, row by row, in nats and the units of x
    flow.sample((1000,))
    flow.trajectory(z, torch.linspace(0, 1, 50))   # particles on their way from base to data

Shapes: x (*batch, dim), context (*batch, context_dim), log_prob (*batch,), trajectory (time,
*batch, dim).
Gradients of a solve: `gradient="discrete"`, "adjoint" or "direct". All randomness is torch's.
"""

from __future__ import annotations

from typing import Any

import lazy_loader

from cnf.deprecation import renamed
from cnf.version import VERSION

__version__ = VERSION
# torch is slow to load and scikit-learn slower. The names of `__init__.pyi` are imported when they
# are used, so that `cnf --help` answers at once.
_lazy, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    return renamed(__name__, name) or _lazy(name)
