"""Flows fitted to formulas
========================

Fit flows to densities that are known up to their normalizer, and to a posterior.

Run it with::

    python scripts/variational.py --out figures

The first targets are the four energies of Rezende and Mohamed (2015). Planar flows with K = 8 and K = 32
transforms (the baseline of the Neural ODE paper) and CNFs of width 8 and 32 are trained by reverse KL in
this run. The second target is the posterior of a Bayesian logistic regression on scikit-learn's
breast-cancer table, compared with a long run of pyro's NUTS. The script prints KL(q ‖ p) in nats ± its
standard error, the effective sample size as a fraction of the draws, Pareto k and the parameters. It
writes variational and variational_posterior, each as .png and .json.
"""

# sphinx_gallery_thumbnail_path = "../figures/variational.png"
from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from posterior import run_posterior
from results import Cell, kept, write_json
from torch import Tensor

import cnf
from cnf import plotting
from cnf.plotting.style import DENSITY, styled
from cnf.variational import (
    ENERGIES,
    Energy,
    PlanarFlow,
    Sampler,
    fit_reverse_kl,
    importance_sample,
)

FRAME = ((-5.5, 5.5), (-5.5, 5.5))


def continuous(width: int) -> cnf.CNF:
    """A CNF with two hidden layers of this width."""
    field = cnf.GatedField(2, (width, width), modulation=8, frequency=1.0)
    return cnf.CNF(2, field=field, solver=cnf.Grid.uniform(5))


@dataclass(frozen=True)
class Contender:
    """A flow to fit: how it is made, and how it is trained (a planar update costs about a
    quarter)."""

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
    """One flow on one energy: KL(q ‖ p) in nats with its standard error, and what its weights are
    worth."""

    energy: str
    flow: str
    parameters: int
    kl: float
    kl_se: float
    log_normalizer_error: float
    efficiency: float
    pareto_k: float
    updates: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.energy:<4}{self.flow:<16}{self.parameters:>6}{self.kl:>9.4f} ± {self.kl_se:.4f}"
            f"{self.log_normalizer_error:>+10.4f}{self.efficiency:>8.3f}{self.pareto_k:>8.2f}"
            f"{self.updates:>8}{self.seconds:>7.0f}"
        )


HEADER = (
    f"{'':<4}{'flow':<16}{'par.':>6}{'KL, nats':>18}{'log Z −':>10}{'ESS/n':>8}{'k':>8}"
    f"{'updates':>8}{'s':>7}"
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
        kl=energy.log_normalizer - found.lower_bound,
        kl_se=found.lower_bound_error,
        log_normalizer_error=found.log_normalizer - energy.log_normalizer,
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
def draw_energies(
    energies: Sequence[Energy], columns: Sequence[Sequence[tuple[Result, Tensor]]]
) -> Figure:
    """A row for each energy: its density, and the draws of every flow as a histogram."""
    page, axes = plotting.figure(len(energies), 1 + len(columns[0]), panel=(1.35, 1.35))
    for row, energy, found in zip(axes, energies, columns):
        plotting.density(energy.log_prob, FRAME, ax=row[0], resolution=150)
        peak = row[0].images[0].get_clim()[1]
        row[0].set_ylabel(energy.name)
        for ax, (result, x) in zip(row[1:], found):
            histogram(ax, x, peak)
            ax.text(
                0.97, 0.96, f"KL {result.kl:.3f}", transform=ax.transAxes, ha="right", va="top"
            )
    for ax, name in zip(axes[0], ("target", *(result.flow for result, _ in columns[0]))):
        ax.set_title(name)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], xlabel="")
        ax.spines[:].set(visible=True, color="#cccccc")
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    return page


def histogram(ax: Axes, x: Tensor, peak: float) -> None:
    """The density of draws x (n, 2), in the colors of the target."""
    ax.hist2d(
        *x.T.numpy(),
        bins=90,
        range=FRAME,
        density=True,
        cmap=DENSITY,
        vmin=0,
        vmax=peak,
        rasterized=True,
    )
    ax.set_aspect("equal")


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


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to")
    parser.add_argument(
        "--cells", type=Path, help="folder of finished results, from which a rerun continues"
    )
    parser.add_argument("--only", choices=("energies", "posterior"), help="which of the two parts")
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
        write_json(options.out / "variational.json", results)
    if options.only != "energies":
        steps, draws, chain_draws = (5, 1_000, 40) if options.quick else (400, 50_000, 4_000)
        numbers = run_posterior(options, steps=steps, draws=draws, chain_draws=chain_draws)
        write_json(options.out / "variational_posterior.json", numbers)


if __name__ == "__main__":
    main()
