"""Exact, fast and verifiable density estimation with continuous normalizing flows.

A flow carries a simple base density at t = 0 to the data at t = 1 by an ordinary differential
equation, dx/dt = v(t, x, context). The density follows the instantaneous change of variables,

    log p(x) = log p₀(z) − ∫₀¹ tr ∂v/∂x dt,        x = x(1), z = x(0).

    import cnf
    flow = cnf.CNF(dim=2)
    history = cnf.fit(flow, x, seconds=60)         # flow matching, then maximum likelihood
    flow.log_prob(x)                               # exact, row by row, in nats and the units of x
    flow.sample((1000,))
    flow.trajectory(z, torch.linspace(0, 1, 50))   # particles from the base to the data

Shapes: x (*batch, dim), context (*batch, context_dim), log_prob (*batch,), trajectory (time,
*batch, dim).
Gradients of a solve: `gradient="discrete"`, "adjoint" or "direct". Randomness is torch's.
"""

from __future__ import annotations

from typing import Any

import lazy_loader

from cnf.deprecation import renamed
from cnf.version import VERSION

__version__ = VERSION
# torch is slow to import, and scikit-learn is slower. The names of `__init__.pyi` are imported on
# first use, so that `cnf --help` is fast.
_lazy, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    return renamed(__name__, name) or _lazy(name)
