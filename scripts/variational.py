"""Fit flows to densities that are known up to their normaliser, and to a posterior.

    python scripts/variational.py --out figures

The four energies of Rezende and Mohamed (2015), by planar flows with K = 8 and K = 32 maps (the baseline of
the Neural ODE paper) and by CNFs of width 8 and 32, all trained by reverse KL in this run; then the posterior
of a Bayesian logistic regression on scikit-learn's breast-cancer table, beside a long run of pyro's NUTS.
Prints KL(q ‖ p) in nats ± its standard error, the effective sample size as a share of the draws, Pareto k and
the parameters; writes variational and variational_posterior, each .png and .json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pyro
import torch
from cells import Cell, kept
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pyro.infer import MCMC, NUTS
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from sklearn.datasets import load_breast_cancer
from torch import Tensor

import cnf
from cnf import plotting
from cnf.files import atomic_path
from cnf.plotting.style import DENSITY, FAINT, INK, MODEL, styled
from cnf.variational import (
    ENERGIES,
    Energy,
    Importance,
    LogisticPosterior,
    PlanarFlow,
    Sampler,
    fit_reverse_kl,
    importance_sample,
    laplace,
)

FRAME = ((-5.5, 5.5), (-5.5, 5.5))


def continuous(width: int) -> cnf.CNF:
    """A CNF with two hidden layers of this width."""
    field = cnf.GatedField(2, (width, width), modulation=8, frequency=1.0)
    return cnf.CNF(2, field=field, solver=cnf.Grid.uniform(5))


@dataclass(frozen=True)
class Contender:
    """A flow to fit: how it is made, and how it is trained (a planar update costs about a quarter)."""

    name: str
    make: Callable[[], Sampler]
    steps: int
    learning_rate: float
    anneal: float


def contenders(steps: int) -> list[Contender]:
    """Each with the learning rate and annealing that served it best on U4."""
    return [
        Contender("planar, K = 8", lambda: PlanarFlow(2, 8), 4 * steps, 0.01, 0.3),
        Contender("planar, K = 32", lambda: PlanarFlow(2, 32), 4 * steps, 0.01, 0.3),
        Contender("CNF, width 8", lambda: continuous(8), steps, 0.02, 0.5),
        Contender("CNF, width 32", lambda: continuous(32), steps, 0.02, 0.5),
    ]


@dataclass(frozen=True)
class Result:
    """One flow on one energy: KL(q ‖ p) in nats with its standard error, and what its weights are worth."""

    energy: str
    flow: str
    parameters: int
    kl: float
    kl_se: float
    log_normaliser_error: float
    efficiency: float
    pareto_k: float
    updates: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.energy:<4}{self.flow:<16}{self.parameters:>6}{self.kl:>9.4f} ± {self.kl_se:.4f}"
            f"{self.log_normaliser_error:>+10.4f}{self.efficiency:>8.3f}{self.pareto_k:>8.2f}"
            f"{self.updates:>8}{self.seconds:>7.0f}"
        )


HEADER = (
    f"{'':<4}{'flow':<16}{'par.':>6}{'KL, nats':>18}{'log Z −':>10}{'ESS/n':>8}{'k':>8}{'updates':>8}{'s':>7}"
)


def fit_energy(energy: Energy, contender: Contender, *, draws: int, seed: int) -> Cell:
    """Fit one flow to one energy, and weigh fresh draws x of it, (draws, 2)."""
    torch.manual_seed(seed)
    flow = contender.make()
    start = time.perf_counter()
    fit_reverse_kl(
        flow,
        energy.log_density,
        steps=contender.steps,
        learning_rate=contender.learning_rate,
        anneal=contender.anneal,
        seed=seed,
    )
    seconds = time.perf_counter() - start
    confirm(flow, seed=seed + 1)
    found = importance_sample(flow, energy.log_density, draws, generator=seeded(seed + 2))
    result = Result(
        energy=energy.name,
        flow=contender.name,
        parameters=sum(p.numel() for p in flow.parameters()),
        kl=energy.log_normaliser - found.lower_bound,
        kl_se=found.lower_bound_error,
        log_normaliser_error=found.log_normaliser - energy.log_normaliser,
        efficiency=found.efficiency,
        pareto_k=found.pareto_k,
        updates=contender.steps,
        seconds=seconds,
    )
    return asdict(result), {"x": found.x}


def confirm(flow: Sampler, *, seed: int) -> None:
    """Give a CNF a grid on which the solver's error stays below a thousandth of a nat."""
    if isinstance(flow, cnf.CNF):
        flow.calibrate(flow.sample((2_000,), generator=seeded(seed)), tolerance=1e-3)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@styled
def draw_energies(energies: Sequence[Energy], columns: Sequence[Sequence[tuple[Result, Tensor]]]) -> Figure:
    """A row for each energy: its density, and the draws of every flow as a histogram."""
    page, axes = plotting.figure(len(energies), 1 + len(columns[0]), panel=(1.35, 1.35))
    for row, energy, found in zip(axes, energies, columns):
        plotting.density(energy.log_prob, FRAME, ax=row[0], resolution=150)
        peak = row[0].images[0].get_clim()[1]
        row[0].set_ylabel(energy.name)
        for ax, (result, x) in zip(row[1:], found):
            histogram(ax, x, peak)
            ax.text(0.97, 0.96, f"KL {result.kl:.3f}", transform=ax.transAxes, ha="right", va="top")
    for ax, name in zip(axes[0], ("target", *(result.flow for result, _ in columns[0]))):
        ax.set_title(name)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], xlabel="")
        ax.spines[:].set(visible=True, color="#cccccc")
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    return page


def histogram(ax: Axes, x: Tensor, peak: float) -> None:
    """The density of draws x (n, 2), in the colours of the target."""
    ax.hist2d(
        *x.T.numpy(), bins=90, range=FRAME, density=True, cmap=DENSITY, vmin=0, vmax=peak, rasterized=True
    )
    ax.set_aspect("equal")


def cancer_posterior() -> tuple[LogisticPosterior, list[str]]:
    """The logistic regression of benign against malignant on standardised columns, and their names."""
    table = load_breast_cancer()
    x = torch.tensor((table.data - table.data.mean(0)) / table.data.std(0))
    names = ["intercept", *(str(name) for name in table.feature_names)]
    return LogisticPosterior(x, torch.tensor(table.target == 1)), names


def chain(posterior: LogisticPosterior, start: Tensor, *, draws: int, seed: int) -> Cell:
    """Draws w (draws, dim) of pyro's No-U-Turn sampler with a dense mass matrix, and how well it mixed."""
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
    """Largest distance of means, in posterior deviations, and of deviations, as a share, over all columns."""

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
    """A CNF that starts as the Laplace approximation; its draws x (draws, dim) with their log-weights."""
    torch.manual_seed(seed)
    solver = cnf.Grid.uniform(3)
    flow = cnf.CNF(posterior.dim, hidden=(64, 64), preprocess=gaussian, solver=solver)
    start = time.perf_counter()
    fit_reverse_kl(flow, posterior.log_density, steps=steps, batch=128, learning_rate=3e-3, seed=seed)
    seconds = time.perf_counter() - start
    flow.calibrate(flow.sample((1_000,), generator=seeded(seed + 1)), tolerance=1e-2)
    found = importance_sample(flow, posterior.log_density, draws, generator=seeded(seed + 2))
    numbers = {
        "parameters": sum(p.numel() for p in flow.parameters()),
        "updates": steps,
        "seconds": seconds,
        "evidence_lower_bound": found.lower_bound,
        "log_evidence": found.log_normaliser,
        "efficiency": found.efficiency,
        "pareto_k": found.pareto_k,
    }
    return numbers, {"x": found.x, "log_weights": found.log_weights}


@styled
def draw_posterior(names: Sequence[str], chain: Tensor, flow: Tensor) -> Figure:
    """Means and central 95 % of every coefficient, by the sampler and by the flow."""
    page, axes = plotting.figure(1, 1, panel=(4.6, 4.6))
    ax, levels = axes[0, 0], torch.tensor((0.025, 0.975), dtype=torch.float64)
    for w, colour, shift, label in ((chain, INK, 0.16, "NUTS"), (flow, MODEL, -0.16, "flow")):
        places = torch.arange(len(names)) + shift
        low, high = w.quantile(levels, dim=0)
        ax.hlines(places, low, high, color=colour, linewidth=1.4)
        ax.plot(w.mean(0), places, "o", color=colour, markersize=2.6, label=label)
    ax.axvline(0, color=FAINT, linewidth=0.6, zorder=0)
    ax.set_yticks(range(len(names)), names, fontsize=6)
    ax.invert_yaxis()
    ax.set_xlabel("coefficient (benign against malignant): mean and central 95 %")
    ax.legend(loc="lower right")
    return page


def run_energies(options: argparse.Namespace, *, steps: int, draws: int) -> list[Result]:
    """Every flow on every energy, and their picture."""
    energies = list(ENERGIES.values())[: 2 if options.quick else None]
    columns = []
    print(HEADER, flush=True)
    for energy in energies:
        columns.append([])
        for contender in contenders(steps):
            fit = partial(fit_energy, energy, contender, draws=draws, seed=options.seed)
            numbers, arrays = kept(options.cells, f"{energy.name} {contender.name}", fit)
            columns[-1].append((Result(**numbers), arrays["x"]))
            print(columns[-1][-1][0], flush=True)
    plotting.save(draw_energies(energies, columns), options.out / "variational.png")
    return [result for column in columns for result, _ in column]


def run_posterior(options: argparse.Namespace, *, steps: int, draws: int, chain_draws: int) -> dict:
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


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to")
    parser.add_argument("--cells", type=Path, help="folder to keep what is done, for a rerun to go on")
    parser.add_argument("--only", choices=("energies", "posterior"), help="one part of the two")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a trial run on two energies")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only != "posterior":
        steps, draws = (10, 1_000) if options.quick else (450, 100_000)
        results = run_energies(options, steps=steps, draws=draws)
        write(options.out / "variational.json", [asdict(result) for result in results])
    if options.only != "energies":
        steps, draws, chain_draws = (5, 1_000, 40) if options.quick else (400, 50_000, 4_000)
        numbers = run_posterior(options, steps=steps, draws=draws, chain_draws=chain_draws)
        write(options.out / "variational_posterior.json", numbers)


def write(path: Path, numbers: list | dict) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
