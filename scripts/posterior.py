"""The posterior of a Bayesian logistic regression, from a flow and from pyro's NUTS; `variational.py`
runs it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import pyro
import torch
from matplotlib.figure import Figure
from pyro.infer import MCMC, NUTS
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from results import Cell, kept
from sklearn.datasets import load_breast_cancer
from torch import Tensor

import cnf
from cnf import plotting
from cnf.plotting.style import FAINT, INK, MODEL, styled
from cnf.variational import (
    Importance,
    LogisticPosterior,
    fit_reverse_kl,
    importance_sample,
    laplace,
)


def cancer_posterior() -> tuple[LogisticPosterior, list[str]]:
    """The logistic regression of benign against malignant on standardized columns, and their
    names."""
    table = load_breast_cancer()
    x = torch.tensor((table.data - table.data.mean(0)) / table.data.std(0))
    names = ["intercept", *(str(name) for name in table.feature_names)]
    return LogisticPosterior(x, torch.tensor(table.target == 1)), names


def chain(posterior: LogisticPosterior, start: Tensor, *, draws: int, seed: int) -> Cell:
    """Draws w (draws, dim) of pyro's No-U-Turn sampler with a dense mass matrix, and how well it
    mixed."""
    pyro.set_rng_seed(seed)
    kernel = NUTS(potential_fn=lambda at: -posterior.log_density(at["w"]), full_mass=True)
    sampler = MCMC(
        kernel,
        num_samples=draws,
        warmup_steps=max(draws // 8, 100),
        initial_params={"w": start},
        disable_progbar=True,
    )
    began = time.perf_counter()
    sampler.run()
    w = sampler.get_samples()["w"]
    quality = {
        "draws": draws,
        "smallest_ess": effective_sample_size(w[None]).min().item(),
        "largest_r_hat": split_gelman_rubin(w[None]).max().item(),
        "seconds": time.perf_counter() - began,
    }
    return quality, {"w": w}


@dataclass(frozen=True)
class Comparison:
    """Largest distance of means, in posterior deviations, and of deviations, as a share, over all
    columns."""

    mean: float
    deviation: float


def compare(mean: Tensor, deviation: Tensor, w: Tensor) -> Comparison:
    """Moments (dim,) against those of a chain w (draws, dim)."""
    truth, spread = w.mean(0), w.std(0)
    return Comparison(
        ((mean - truth) / spread).abs().max().item(), (deviation / spread - 1).abs().max().item()
    )


def fit_posterior(
    posterior: LogisticPosterior, gaussian: cnf.Affine, *, steps: int, draws: int, seed: int
) -> Cell:
    """A CNF that starts as the Laplace approximation; its draws x (draws, dim) with their
    log-weights."""
    torch.manual_seed(seed)
    solver = cnf.Grid.uniform(3)
    flow = cnf.CNF(posterior.dim, hidden=(64, 64), preprocess=gaussian, solver=solver)
    start = time.perf_counter()
    fit_reverse_kl(
        flow, posterior.log_density, steps=steps, batch=128, learning_rate=3e-3, seed=seed
    )
    seconds = time.perf_counter() - start
    flow.calibrate(
        flow.sample((1_000,), generator=torch.Generator().manual_seed(seed + 1)), tolerance=1e-2
    )
    found = importance_sample(
        flow, posterior.log_density, draws, generator=torch.Generator().manual_seed(seed + 2)
    )
    numbers = {
        "parameters": sum(p.numel() for p in flow.parameters()),
        "updates": steps,
        "seconds": seconds,
        "evidence_lower_bound": found.lower_bound,
        "log_evidence": found.log_normalizer,
        "efficiency": found.efficiency,
        "pareto_k": found.pareto_k,
    }
    return numbers, {"x": found.x, "log_weights": found.log_weights}


@styled
def draw_posterior(names: Sequence[str], chain: Tensor, flow: Tensor) -> Figure:
    """Means and central 95 % of every coefficient, by the sampler and by the flow."""
    page, axes = plotting.figure(1, 1, panel=(4.6, 4.6))
    ax, levels = axes[0, 0], torch.tensor((0.025, 0.975), dtype=torch.float64)
    for w, color, shift, label in ((chain, INK, 0.16, "NUTS"), (flow, MODEL, -0.16, "flow")):
        places = torch.arange(len(names)) + shift
        low, high = w.quantile(levels, dim=0)
        ax.hlines(places, low, high, color=color, linewidth=1.4)
        ax.plot(w.mean(0), places, "o", color=color, markersize=2.6, label=label)
    ax.axvline(0, color=FAINT, linewidth=0.6, zorder=0)
    ax.set_yticks(range(len(names)), names, fontsize=6)
    ax.invert_yaxis()
    ax.set_xlabel("coefficient (benign against malignant): mean and central 95 %")
    ax.legend(loc="lower right")
    return page


def run_posterior(
    options: argparse.Namespace, *, steps: int, draws: int, chain_draws: int
) -> dict:
    """The posterior by flow and by sampler, their distances, and their picture."""
    posterior, names = cancer_posterior()
    gaussian = laplace(posterior.log_density, torch.zeros(posterior.dim))
    fit = partial(fit_posterior, posterior, gaussian, steps=steps, draws=draws, seed=options.seed)
    numbers, flow = kept(options.cells, "posterior flow", fit)
    run = partial(chain, posterior, gaussian.shift, draws=chain_draws, seed=options.seed)
    quality, long = kept(options.cells, "posterior chain", run)
    x, w = flow["x"].double(), long["w"]
    moments = {
        "laplace": (gaussian.shift, (gaussian.matrix @ gaussian.matrix.T).diagonal().sqrt()),
        "flow": (x.mean(0), x.std(0)),
        "weighted": Importance(**flow).moments(),
    }
    plotting.save(draw_posterior(names, w, x), options.out / "variational_posterior.png")
    distances = {name: asdict(compare(*pair, w)) for name, pair in moments.items()}
    report_posterior(numbers, quality, distances)
    return {**numbers, "nuts": quality, "distances": distances}


def report_posterior(numbers: dict, quality: dict, distances: dict) -> None:
    print(
        f"\nposterior of 31 coefficients: NUTS {quality['draws']:,} draws, smallest ESS"
        f" {quality['smallest_ess']:,.0f}, R-hat below {quality['largest_r_hat']:.4f},"
        f" {quality['seconds']:.0f} s"
    )
    print(
        f"flow: {numbers['parameters']:,} parameters, {numbers['updates']} updates,"
        f" {numbers['seconds']:.0f} s; bound {numbers['evidence_lower_bound']:.4f}, log evidence"
        f" {numbers['log_evidence']:.4f} (up to the prior's constant), ESS/n {numbers['efficiency']:.3f},"
        f" Pareto k {numbers['pareto_k']:.2f}"
    )
    for name, distance in distances.items():
        print(
            f"  {name:<9} means within {distance['mean']:.3f} posterior deviations,"
            f" deviations within {100 * distance['deviation']:.1f} %"
        )
