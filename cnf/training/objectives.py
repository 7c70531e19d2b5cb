"""What training minimizes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cnf.flows import CNF
from cnf.ode import Gradient, Solver
from cnf.training.couplings import couple
from cnf.training.penalties import NONE, Regularizers


def flow_matching_loss(
    flow: CNF,
    y: Tensor,
    context: Tensor | None,
    generator: torch.Generator,
    *,
    block: int | None = None,
    times: int = 64,
    times_a_pair: int = 1,
) -> Tensor:
    """Mean of |v(t, (1 − t) z + t y) − (y − z)|² over times t and base points z (Lipman et al.
    2023).

    Its minimizer carries the base to the data; no equation is solved. Rows share `times`
    stratified times, so that the gates of a field are computed once for all rows of a time.

    Args:
        flow: the flow whose field is trained.
        y: data in model coordinates (rows, dim), rows a multiple of `times`.
        context: in model coordinates (rows, context_dim).
        generator: source of times and base points.
        block: rows coupled by optimal transport; None couples independently, as a context demands,
            since rows may not change places with rows of another context.
        times: number of distinct times.
        times_a_pair: how often each pair of base point and row is used, at times far apart:
            pairing by optimal transport costs more than an evaluation of the field.
    """
    z = flow.sample_base((len(y),), generator)
    y = y if block is None else couple(z, y, block)
    if times_a_pair > 1:
        y, z = y.repeat(times_a_pair, 1), z.repeat(times_a_pair, 1)
        context = None if context is None else context.repeat(times_a_pair, 1)
    u = torch.rand(times, generator=generator, device=y.device, dtype=y.dtype)
    t = ((torch.arange(times, device=y.device) + u) / times)[:, None]
    y, z = y.reshape(times, -1, flow.dim), z.reshape(times, -1, flow.dim)
    context = None if context is None else context.reshape(times, -1, flow.context_dim)
    at = torch.lerp(z, y, t[..., None])
    return (flow.field(t, at, context) - (y - z)).square().sum(-1).mean()


@dataclass(frozen=True)
class Likelihood:
    """The parts of the likelihood objective, each a scalar, the first two in nats, and log p of
    each row, detached."""

    nll: Tensor
    solver_error: Tensor
    penalty: Tensor
    log_prob: Tensor


def likelihood_loss(
    flow: CNF,
    y: Tensor,
    context: Tensor | None,
    generator: torch.Generator,
    *,
    solver: Solver,
    gradient: Gradient | None = None,
    regularizers: Regularizers = NONE,
    importance: Tensor | None = None,
) -> Likelihood:
    """Mean of −log p(y) by one solve, and the means of the solver's error estimate and of the
    penalty.

    A solver with few steps can be cheated: the field learns to make steps whose error looks like
    likelihood. Minimizing the error along with the objective keeps the field where the solver can
    be believed. Rows that were drawn more or less often than others have an `importance` in the
    means (rows,)."""
    extend = partial(regularizers.extend, like=y, generator=generator) if regularizers else None
    scores = flow.solve_log_prob(
        y, context, solver, gradient=gradient, generator=generator, extend=extend
    )

    def mean(values: Tensor) -> Tensor:
        return values.mean() if importance is None else (importance.to(values) * values).mean()

    penalty = mean(scores.extra.sum(-1)) if regularizers else scores.log_prob.new_zeros(())
    error = mean(scores.step_error.sum(0))
    return Likelihood(-mean(scores.log_prob), error, penalty, scores.log_prob.detach())
