"""How a latent ODE learns: the evidence lower bound, with its divergence annealed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from cnf.neural_ode.latent_ode import LatentODE
from cnf.neural_ode.latent_series import Series
from cnf.training import History, descend

WARM_UP = 0.02


@dataclass(frozen=True)
class Bound:
    """The two parts of the evidence lower bound of each series, in nats, (batch,)."""

    log_likelihood: Tensor
    divergence: Tensor

    def value(self, beta: float = 1.0) -> Tensor:
        """E log p(targets | z) − β KL(q ‖ N(0, I)), (batch,); a bound of the evidence for β = 1."""
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

    With targets = observed it is the bound of Kingma and Welling (2014) on log p(observed); with targets
    beyond what is observed, the objective of forecasting (Rubanova et al. 2019).

    Args:
        model: the latent ODE.
        observed: what the recognition network reads.
        targets: what is to be explained; what its mask hides has no weight.
        context: (batch, context_dim).
        generator: of the draw.
    """
    posterior = model.recognise(observed, context)
    noise = torch.randn(
        posterior.mean.shape,
        generator=generator,
        device=posterior.mean.device,
        dtype=posterior.mean.dtype,
    )
    z = posterior.mean + posterior.stddev * noise
    times = targets.times.where(targets.seen, torch.full_like(targets.times, model.start))
    fit = model(z, times, context).log_prob(targets.values)
    prior = Normal(torch.zeros_like(z), torch.ones_like(z), validate_args=False)
    return Bound(fit.masked_fill(~targets.mask, 0.0).sum((1, 2)), kl_divergence(posterior, prior).sum(-1))


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
    seed: int = 0,
    watch: Callable[[int], None] | None = None,
) -> History:
    """Maximise the lower bound by Adam, its divergence weighted by a β that rises from 0 on.

    With β = 1 at the end it bounds the evidence of the targets. Where these lie beyond what is observed, that
    makes the model pay for everything it takes over from the observations; with β = 0 the recognition network
    is itself the prior, and the objective bounds the conditional log p(targets | observed) of a forecast.

    Args:
        model: trained in place.
        observed: series to read.
        targets: series to explain; the default is `observed`.
        context: (series, context_dim).
        steps: number of updates.
        batch: series of an update.
        learning_rate: its peak; after a warm-up it falls to zero along a cosine.
        beta: β at the end, from 0 on.
        anneal: share of the updates during which β rises, in [0, 1].
        seed: of batches and draws.
        watch: told the number of updates after each of them.

    Returns:
        The records; their objective is the negative lower bound in nats per target value, β as it then was.

    Raises:
        ValueError: for a budget that is not positive, a share outside [0, 1], a negative beta, or no series.
        TrainingError: if the bound or its gradient is not finite.
    """
    if min(steps, batch, len(observed)) < 1 or not (0 <= anneal <= 1 and beta >= 0):
        raise ValueError(
            "expected at least one step, series a batch and series; anneal in [0, 1], beta from 0 on;"
            f" got {steps}, {batch}, {len(observed)}; {anneal}, {beta}"
        )
    targets = observed if targets is None else targets
    generator = torch.Generator(observed.times.device).manual_seed(seed)

    def objective(step: int) -> tuple[Tensor, Tensor]:
        weight = beta * (min(1.0, step / steps / anneal) if anneal > 0 else 1.0)
        rows = torch.randint(len(observed), (batch,), generator=generator, device=observed.times.device)
        given, aim = None if context is None else context[rows], targets.take(rows)
        bound = lower_bound(model, observed.take(rows), aim, given, generator=generator)
        loss = -bound.value(weight).sum() / aim.mask.sum()
        return loss, loss

    return descend(
        model.parameters(),
        objective,
        phase="latent ODE",
        steps=steps,
        learning_rate=learning_rate,
        warm_up=WARM_UP,
        watch=watch,
    )
