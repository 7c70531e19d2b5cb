"""Training of a latent ODE by the evidence lower bound with an annealed divergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from cnf.inputs import as_seed
from cnf.neural_ode.latent_ode import LatentODE
from cnf.neural_ode.latent_series import Series
from cnf.training import Callback, History, WarmupCosine, minimize
from cnf.training.callbacks import renamed_callbacks
from cnf.training.modes import with_gradients

LATENT_SCHEDULE = WarmupCosine(warm_up=0.02)
EARLY_SHARE = 0.7  # of a series, within which the agreement restarts a path


@dataclass(frozen=True)
class Bound:
    """The two parts of the evidence lower bound of each series, in nats, (batch,), and z, (batch,
    latent)."""

    log_likelihood: Tensor
    divergence: Tensor
    z: Tensor

    def value(self, beta: float = 1.0) -> Tensor:
        """E log p(targets | z) − β KL(q ‖ N(0, I)), (batch,); β = 1 bounds the evidence."""
        return self.log_likelihood - beta * self.divergence


def lower_bound(
    model: LatentODE,
    observed: Series,
    targets: Series,
    context: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Bound:
    """E_q log p(targets | z) and KL(q ‖ p) by one draw z ~ q(z(start) | observed).

    With targets = observed it is the bound of Kingma and Welling (2014) on log p(observed); with
    targets beyond the observations it is the objective of forecasting (Rubanova et al. 2019).

    Args:
        model: the latent ODE.
        observed: the series that the recognition network reads.
        targets: the series to predict; values hidden by its mask have no weight.
        context: (batch, context_dim).
        generator: source of the draw.
    """
    posterior = model.recognize(observed, context)
    mean = posterior.mean
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    z = mean + posterior.stddev * noise
    times = targets.times.where(targets.seen, torch.full_like(targets.times, model.start))
    fit = model(z, times, context).log_prob(targets.values)
    prior = Normal(torch.zeros_like(z), torch.ones_like(z), validate_args=False)
    explained = fit.masked_fill(~targets.mask, 0.0).sum((1, 2))
    return Bound(explained, kl_divergence(posterior, prior).sum(-1), z)


def agreement(
    model: LatentODE,
    z: Tensor,
    observed: Series,
    context: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """log q(z(c) | observations from c on), at a random time c on the path from z(start), (batch,).

    The velocity does not depend on time, so a path may be restarted from any time. The likelihood
    alone allows a different state for the same point of a curve whenever it is reached at another
    time, and it does not constrain states after the last observation. The agreement ties the path
    to what the recognition network infers at time c. This is multiple shooting (Bock & Plitt 1984;
    for latent ODEs Iakovlev et al. 2023).

    Args:
        model: the latent ODE.
        z: z(start) (batch, latent), a draw of q(z(start) | observed), as `lower_bound` returns it.
        observed: series with observations after the start.
        context: (batch, context_dim).
        generator: of c, in the first seven tenths of each series.
    """
    times = observed.times.where(observed.seen, torch.full_like(observed.times, model.start))
    span = (times.amax(1, keepdim=True) - model.start).clamp(min=0)
    share = torch.rand(span.shape, generator=generator, device=span.device, dtype=span.dtype)
    after = EARLY_SHARE * share * span
    moved = Series(times - after, observed.values, observed.mask)
    rest = moved.hide((moved.times < model.start)[..., None].expand_as(moved.mask))
    reached = model.states(z, model.start + after, context)[:, 0]
    return model.recognize(rest, context).log_prob(reached).sum(-1)


@with_gradients
def fit_latent_ode(
    model: LatentODE,
    observed: Series,
    targets: Series | None = None,
    context: Tensor | None = None,
    *,
    steps: int,
    batch: int = 100,
    learning_rate: float = 1e-2,
    beta: float = 1.0,
    anneal: float = 0.5,
    agree: float = 0.0,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    **renamed: Any,
) -> History:
    """Maximize the lower bound with Adam, with a divergence weight β that rises from 0.

    With β = 1 at the end, it bounds the evidence of the targets. If the targets lie after the
    observations, the divergence penalizes all information taken from the observations. With β = 0,
    the recognition network itself is the prior, and the objective bounds log p(targets | observed)
    of a forecast.

    Args:
        model: trained in place.
        observed: series that the recognition network reads.
        targets: series to predict; the default is `observed`.
        context: (series, context_dim).
        steps: number of training steps.
        batch: number of series per training step.
        learning_rate: peak learning rate; after a warm-up it decreases to zero along a cosine.
        beta: β at the end, at least 0.
        anneal: share of the training steps during which β rises, in [0, 1].
        agree: weight of the `agreement`, at least 0; for forecasts further ahead than the longest
            series. Its scale is that of the divergence, so a weight above β makes states small.
        seed: of batches and draws.
        callbacks: called after every training step.

    Returns:
        The records; their objective is the negative lower bound in nats per target value, with β
        at that step, minus the weighted agreement.

    Raises:
        ValueError: for a budget that is not positive, a share outside [0, 1], a negative weight,
            or no series.
        TrainingError: if the bound or its gradient is not finite.
    """
    callbacks = renamed_callbacks("fit_latent_ode", renamed, callbacks)
    if min(steps, batch, len(observed)) < 1 or not (0 <= anneal <= 1 and min(beta, agree) >= 0):
        raise ValueError(
            "expected at least one step, series a batch and series; anneal in [0, 1]; beta and agree"
            f" from 0 on; got {steps}, {batch}, {len(observed)}; {anneal}; {beta}, {agree}"
        )
    targets = observed if targets is None else targets
    generator = torch.Generator(observed.times.device).manual_seed(as_seed(seed))

    def objective(step: int) -> tuple[Tensor, Tensor]:
        weight = beta * (min(1.0, step / steps / anneal) if anneal > 0 else 1.0)
        rows = torch.randint(
            len(observed), (batch,), generator=generator, device=observed.times.device
        )
        given, aim = None if context is None else context[rows], targets.take(rows)
        read = observed.take(rows)
        bound = lower_bound(model, read, aim, given, generator=generator)
        gain = bound.value(weight)
        if agree > 0:
            gain = gain + agree * agreement(model, bound.z, read, given, generator=generator)
        loss = -gain.sum() / aim.mask.sum()
        return loss, loss

    return minimize(
        model.parameters(), objective, phase="latent ODE", steps=steps,
        learning_rate=learning_rate, schedule=LATENT_SCHEDULE, callbacks=callbacks,
    )  # fmt: skip
