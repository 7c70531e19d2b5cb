"""The posterior of the two moons at equal time: a conditional flow against sbi's NPE and FMPE.

    python scripts/two_moons.py            # writes figures/two_moons.json

The simulator is that of Greenberg et al. (2019), "Automatic posterior transformation": θ is uniform on
[−1, 1]², and x = p + (−|θ₁ + θ₂|, θ₂ − θ₁)/√2, with p on a half circle of radius N(0.1, 0.01²) around
(0.25, 0). Its posterior is known, so that the mean of log p(θ | x) − log q(θ | x) over new pairs estimates
the divergence in nats, up to the standard error of the mean. `cnf.fit` gets a number of seconds; the
others get as much processor time, or less if their held-out loss stops improving.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from results import write_json
from sbi.inference import FMPE, NPE
from sbi.utils import BoxUniform
from sbi.utils.tracking import TensorBoardTracker
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

import cnf

CENTER, RADIUS, SPREAD = 0.25, 0.1, 0.01
# Draws of p that say which part of the posterior lies within the prior.
DRAWS = 2_000
NATS = Callable[[Tensor, Tensor], Tensor]  # log q(θ | x) of pairs


def noise(count: int, generator: torch.Generator) -> Tensor:
    """Draws of p (count, 2)."""
    angle = math.pi * (torch.rand(count, generator=generator) - 0.5)
    radius = RADIUS + SPREAD * torch.randn(count, generator=generator)
    return torch.stack([radius * angle.cos() + CENTER, radius * angle.sin()], 1)


def moved(theta: Tensor) -> Tensor:
    """What θ adds to p (*batch, 2)."""
    a, b = theta.unbind(-1)
    return torch.stack([-(a + b).abs(), b - a], -1) / math.sqrt(2)


def simulated(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pairs of parameters and observations, both (count, 2)."""
    theta = 2 * torch.rand(count, 2, generator=generator) - 1
    return theta, noise(count, generator) + moved(theta)


def log_posterior(theta: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
    """log p(θ | x) (rows,) of pairs.

    p(x | θ) is the density of p = x − moved(θ), and the evidence is the share of the two θ that
    each draw of p comes from which lies within the prior, times its density 1/4."""
    p = (x - moved(theta)).double()
    radius = (p - torch.tensor([CENTER, 0.0])).norm(dim=1)
    of_radius = torch.distributions.Normal(RADIUS, SPREAD).log_prob(radius)
    likelihood = of_radius - (math.pi * radius).log()
    shift = x[:, None] - noise(DRAWS, generator)
    total, difference = (-math.sqrt(2) * shift[..., 0], math.sqrt(2) * shift[..., 1])
    inside = sum(
        (((sign * total - difference).abs() <= 2) & ((sign * total + difference).abs() <= 2) & (total >= 0))
        .double().mean(1)
        for sign in (1, -1)
    )  # fmt: skip
    return likelihood - inside.log()


def by_cnf(theta: Tensor, x: Tensor, seconds: float, seed: int) -> NATS:
    """A conditional flow."""
    flow = cnf.CNF(2, context_dim=2)
    cnf.fit(flow, theta, context=x, seconds=seconds, seed=seed)
    return lambda theta, x: flow.log_prob(theta, x)


def by_npe(theta: Tensor, x: Tensor, seconds: float, seed: int) -> NATS:
    """sbi's NPE with a neural spline flow."""
    estimator = trained(NPE, {"density_estimator": "nsf"}, theta, x, seconds, seed)[1]
    return lambda theta, x: estimator.log_prob(theta[None], x)[0]


def by_fmpe(theta: Tensor, x: Tensor, seconds: float, seed: int) -> NATS:
    """sbi's FMPE."""
    inference, estimator = trained(FMPE, {"vf_estimator": "mlp"}, theta, x, seconds, seed)
    posterior = inference.build_posterior(estimator)
    return lambda theta, x: torch.cat(
        [posterior.log_prob(one[None], x=seen[None]) for one, seen in zip(theta, x)]
    )


def trained(
    method: Any, parts: dict[str, str], theta: Tensor, x: Tensor, seconds: float, seed: int
) -> tuple[Any, Any]:
    """A method of sbi at its defaults, trained for so many seconds of the processor or until it
    stops by itself, and the estimator with the lowest held-out loss."""
    start = time.process_time()

    class Timed(method):
        def _converged(self, epoch: int, stop_after_epochs: int) -> bool:
            converged = super()._converged(epoch, stop_after_epochs)
            if not converged and time.process_time() - start > seconds:
                self._neural_net.load_state_dict(self._best_model_state_dict)
                return True
            return converged

    torch.manual_seed(seed)
    prior = BoxUniform(-torch.ones(2), torch.ones(2))
    with TemporaryDirectory() as folder:
        tracker = TensorBoardTracker(SummaryWriter(folder))
        inference = Timed(prior, **parts, show_progress_bars=False, tracker=tracker)
        found = inference.append_simulations(theta, x).train()
    return inference, found


METHODS = {"sbi NPE, NSF": by_npe, "sbi FMPE": by_fmpe}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="budget of `cnf.fit` in seconds"
    )
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument(
        "--rows", type=int, default=1_000, help="new pairs; FMPE takes half a second for each"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a trial run")
    options = parser.parse_args(argv)
    if options.quick:
        options.seconds, options.simulations, options.rows = 1.0, 300, 20
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(options.seed)
    theta, x = simulated(options.simulations, generator)
    new_theta, new_x = simulated(options.rows, generator)
    truth = log_posterior(new_theta, new_x, generator)

    def distance(score: NATS) -> tuple[float, float]:
        with torch.no_grad():
            gaps = truth - score(new_theta, new_x).double()
        return gaps.mean().item(), (gaps.std() / len(gaps) ** 0.5).item()

    start = time.process_time()
    flow = by_cnf(theta, x, options.seconds, options.seed)
    seconds = time.process_time() - start
    found = {"cnf": distance(flow)}
    for name, method in METHODS.items():
        found[name] = distance(method(theta, x, seconds, options.seed))
    print(f"distance to the posterior in nats, after {seconds:.0f} s of the processor each:")
    for name, (mean, error) in found.items():
        print(f"{name:<14}{mean:8.3f} ± {error:.3f}")
    write_json(options.out / "two_moons.json", {"processor_seconds": seconds, "nats": found})


if __name__ == "__main__":
    main()
