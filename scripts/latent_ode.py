"""Latent ODEs on irregular series
===============================

Latent ODEs compared with recurrent networks of the same size, trained in the same run.

Run it with::

    python scripts/latent_ode.py --out figures

The data are the spirals of the Neural ODE paper: 1,000 spirals of 100 points, of which 30, 50 or 100 are
observed at random times with noise 0.1 (the radius grows from 0.2 to 2.1). The result is the RMSE of the
forecast of 100 further points against the noise-free curve. The peers are an RNN (tanh) and a GRU that
receive the gaps between times. All models are trained on the same noisy observations, none of them beyond
the observed range: the latent ODE on its lower bound and the agreement of its readings, the networks, as
in the paper, on the likelihood of each next observation. The RNN is trained at two learning rates, and the
better forecast counts. Settings were chosen on the spirals of seed 0; seed 5 is the default. The paper
does not state its generator, scale or noise, so that its results are shown but are not comparable.

The second part is daily weather of Rhode Island (see weather.py), if CNF_SHARED_DATA contains it: 20 days
with half of the values removed, and the mean squared error of the next 10 days. The script writes
latent_ode and latent_ode_weather, each as .png and .json."""

# sphinx_gallery_thumbnail_path = "../figures/latent_ode.png"
from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
import weather
import weather_forecast
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from results import Cell, kept, write_json
from series_peers import Budget, GapRNN, Recurrence, count, peer_like, train
from torch import Tensor, nn

from cnf import plotting
from cnf.datasets import spirals
from cnf.neural_ode import LatentODE, Prediction, Series, fit_latent_ode
from cnf.plotting.style import ACCENT, DATA, INK, MODEL, styled

OBSERVED, RANGE, NOISE = (30, 50, 100), 100, 0.1
PEERS = {
    "rnn": (nn.RNN, (0.01, 0.02)),
    "gru": (nn.GRU, (0.01,)),
}  # and learning rates: the best counts
# Chen et al. 2018, table 2: another generator, scale and noise.
PAPER = {30: (0.1642, 0.3937), 50: (0.1502, 0.3202), 100: (0.1346, 0.1813)}


@dataclass(frozen=True)
class Spirals:
    """Observed series, times (points,) and noise-free curves (series, points, 2)."""

    series: Series
    times: Tensor
    curves: Tensor


def observe(n: int, observed: int, points: int, seed: int) -> Spirals:
    """n spirals, of whose first 100 points `observed` are seen, each series at times of its
    own."""
    generator = torch.Generator().manual_seed(seed)
    times, curves = spirals(n, points, generator)
    noisy = curves[:, :RANGE] + NOISE * torch.randn(n, RANGE, 2, generator=generator)
    chosen = torch.rand(n, RANGE, generator=generator).argsort(1)[:, :observed].sort(1).values
    values = noisy.gather(1, chosen[..., None].expand(-1, -1, 2))
    return Spirals(
        Series(times[chosen], values, torch.ones_like(values, dtype=torch.bool)), times, curves
    )


@dataclass(frozen=True)
class SpiralResult:
    """RMSE against the noise-free curve, beyond the observations and (for the latent ODE) among
    them."""

    observed: int
    latent_ode: float
    rnn: float
    gru: float
    latent_ode_within: float
    covered: float
    parameters: dict[str, int]
    learning_rates: dict[str, float]
    seconds: dict[str, float]

    def __str__(self) -> str:
        theirs = " {:.4f} / {:.4f}".format(*PAPER[self.observed])
        return (
            f"{self.observed:>4}{self.latent_ode:>12.4f}{self.rnn:>9.4f}{self.gru:>9.4f}"
            f"{self.latent_ode / self.rnn:>8.2f}{self.latent_ode / self.gru:>6.2f}"
            f"{self.latent_ode_within:>10.4f}{self.covered:>10.3f} {theirs:<20}"
            f"{'/'.join(str(n) for n in self.parameters.values()):>17}"
            f"{'/'.join(f'{s:.0f}' for s in self.seconds.values()):>13}"
        )


SPIRAL_HEADER = (
    f"{'seen':>4}{'latent ODE':>12}{'RNN':>9}{'GRU':>9}{'/ RNN':>8}{'/ GRU':>6}{'within':>10}{'in 95 %':>10}"
    "  paper: ODE / RNN   parameters          seconds"
)


@dataclass(frozen=True)
class Fitted:
    """Both sides on one test set: the latent ODE (mean, draws of the first series) and the RNN."""

    test: Spirals
    mean: Tensor
    draws: Tensor
    rolled: Tensor
    result: SpiralResult


def latent_ode() -> LatentODE:
    """Of the paper's sizes: 4 latent dimensions, 25 units to read with, 20 to move and to decode
    with."""
    return LatentODE(2, latent=4, hidden=25, units=20, steps=10, noise=NOISE)


def fit_latent(data: Spirals, test: Spirals, budget: Budget, seed: int) -> Cell:
    """Train a latent ODE and forecast the test set: mean (series, 200, 2), and draws of the first
    series."""
    torch.manual_seed(seed)
    model, start = latent_ode(), time.perf_counter()
    fit_latent_ode(model, data.series, **asdict(budget), agree=1.0, seed=seed)
    seconds = time.perf_counter() - start
    generator = torch.Generator().manual_seed(seed + 2)
    found = model.predict(test.series, test.times, draws=30, generator=generator)
    noisy = test.curves + NOISE * torch.randn(test.curves.shape, generator=generator)
    numbers = {"covered": coverage(found, noisy), "parameters": count(model), "seconds": seconds}
    return numbers, {"mean": found.mean, "draws": found.draws[:15, 0]}


def fit_peer(cell: Recurrence, data: Spirals, test: Spirals, budget: Budget, seed: int) -> Cell:
    """Train a network as large as the latent ODE and forecast the test set, (series, 100, 2)."""
    torch.manual_seed(seed)
    peer, start = peer_like(latent_ode(), cell, 2), time.perf_counter()
    seen = data.series.values[0].numel()

    def loss(rows: Tensor) -> Tensor:
        return -peer.one_ahead(data.series.take(rows)).mean() / seen

    train(peer, loss, len(data.series), **asdict(budget), seed=seed)
    numbers = {"parameters": count(peer), "seconds": time.perf_counter() - start}
    return numbers, {"rolled": roll_spirals(peer, test)}


def fit_spirals(
    observed: int, budget: Budget, *, n: int, n_test: int, seed: int, cells: Path | None
) -> Fitted:
    """Train all sides on the same spirals, and forecast the spirals of a test set."""
    data, test = observe(n, observed, RANGE, seed), observe(n_test, observed, 2 * RANGE, seed + 1)
    given = (data, test, budget, seed)
    ours, ode = kept(cells, f"spirals {observed} latent", partial(fit_latent, *given))
    theirs, peers = {}, {}
    for name, (cell, rates) in PEERS.items():
        found = []
        for rate in rates:
            slower = replace(budget, learning_rate=rate)
            compute = partial(fit_peer, cell, data, test, slower, seed)
            numbers, arrays = kept(cells, f"spirals {observed} {name} {rate}", compute)
            error = (arrays["rolled"] - test.curves[:, RANGE:]).square().mean().sqrt().item()
            found.append((error, {**numbers, "learning_rate": rate}, arrays["rolled"]))
        theirs[name], *peers[name] = min(found, key=lambda trial: trial[0])
    sides = {"latent_ode": {**ours, "learning_rate": budget.learning_rate}} | {
        name: numbers for name, (numbers, _) in peers.items()
    }
    errors = (ode["mean"] - test.curves).square().mean(-1)
    result = SpiralResult(
        observed=observed,
        latent_ode=errors[:, RANGE:].mean().sqrt().item(),
        **theirs,
        latent_ode_within=errors[:, :RANGE].mean().sqrt().item(),
        covered=ours["covered"],
        parameters={name: numbers["parameters"] for name, numbers in sides.items()},
        learning_rates={name: numbers["learning_rate"] for name, numbers in sides.items()},
        seconds={name: numbers["seconds"] for name, numbers in sides.items()},
    )
    return Fitted(test, ode["mean"], ode["draws"], peers["rnn"][1], result)


@torch.no_grad()
def roll_spirals(peer: GapRNN, test: Spirals) -> Tensor:
    """The network's forecast (series, 100, 2) of the points after the observed range.

    It takes strides of the mean gap that it was trained on, from every offset in turn, so that
    each point is
    reached once: on smaller steps than it has learned it goes astray.
    """
    stride = RANGE // test.series.times.shape[1]
    rolled = torch.empty_like(test.curves[:, RANGE:])
    for first in range(stride):
        times = test.times[RANGE + first :: stride].expand(len(rolled), -1)
        rolled[:, first::stride] = peer.roll(test.series, times)
    return rolled


def coverage(prediction: Prediction, noisy: Tensor) -> float:
    """Share of fresh noisy values beyond the observations that lie in the central 95 % of the
    forecast."""
    inside = (noisy - prediction.mean).abs() < 1.96 * prediction.deviation
    return inside[:, RANGE:].double().mean().item()


@styled
def draw_spirals(fits: Sequence[Fitted]) -> Figure:
    """The first test spiral for every number of observations, and the error against time."""
    page, axes = plotting.figure(1, len(fits) + 1, panel=(1.9, 1.9))
    for ax, fitted in zip(axes[0], fits):
        draw_spiral(ax, fitted)
        ax.set_title(f"{fitted.result.observed} of 100 seen")
    draw_errors(axes[0, -1], fits)
    marks = axes[0, 0].get_legend_handles_labels()
    page.legend(*marks, loc="outside lower center", ncols=4)
    return page


def draw_spiral(ax: Axes, fitted: Fitted) -> None:
    """Truth, observations, draws of the latent ODE, and the RNN's forecast."""
    truth = fitted.test.curves[0]
    for draw in fitted.draws:
        ax.plot(*draw[RANGE:].T, color=MODEL, linewidth=0.3, alpha=0.4)
    ax.plot(*truth.T, color=DATA, linewidth=2.4, alpha=0.5, label="truth")
    ax.plot(*fitted.mean[0].T, color=MODEL, label="latent ODE")
    ax.plot(*fitted.rolled[0].T, color=ACCENT, label="RNN")
    ax.scatter(
        *fitted.test.series.values[0].T, s=5, color=INK, linewidths=0, zorder=3, label="seen"
    )
    half = 1.2 * truth.abs().max().item()
    ax.set(xlim=(-half, half), ylim=(-half, half), xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set(visible=True, color="#cccccc")


def draw_errors(ax: Axes, fits: Sequence[Fitted]) -> None:
    """RMSE at every time, over all test spirals."""
    for fitted, style in zip(fits, ("-", "--", ":")):
        test, seen = fitted.test, fitted.result.observed
        ours = (fitted.mean - test.curves).square().mean((0, 2)).sqrt()
        theirs = (fitted.rolled - test.curves[:, RANGE:]).square().mean((0, 2)).sqrt()
        ax.plot(test.times, ours, style, color=MODEL)
        ax.plot(test.times[RANGE:], theirs, style, color=ACCENT)
        ax.plot([], [], style, color=INK, label=f"{seen} seen")
    ax.axvline(1.0, color=INK, linewidth=0.5, linestyle=(0, (4, 3)))
    ax.set(xlabel="time (seen before 1)", title="RMSE against the truth", ylim=(0, None))
    ax.legend(loc="upper left", fontsize=6)


def run_spirals(
    options: argparse.Namespace, budget: Budget, *, n: int, n_test: int
) -> list[SpiralResult]:
    fits = []
    print(SPIRAL_HEADER, flush=True)
    for observed in OBSERVED:
        fits.append(
            fit_spirals(
                observed, budget, n=n, n_test=n_test, seed=options.seed, cells=options.cells
            )
        )
        print(fits[-1].result, flush=True)
    plotting.save(draw_spirals(fits), options.out / "latent_ode.png")
    return [fitted.result for fitted in fits]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to")
    parser.add_argument(
        "--cells", type=Path, help="folder of finished results, from which a rerun continues"
    )
    parser.add_argument("--only", choices=("spirals", "weather"), help="which of the two parts")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a trial run with few training steps")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only != "weather":
        budget, n, n_test = Budget(1_500, 100, 0.05), 1_000, 500
        if options.quick:
            budget, n, n_test = Budget(8, 20, 0.05), 40, 20
        results = run_spirals(options, budget, n=n, n_test=n_test)
        write_json(options.out / "latent_ode.json", results)
    if options.only == "spirals":
        return
    if not weather.FILE.is_file():
        print(f"\nno weather: {weather.FILE} is not there (CNF_SHARED_DATA names its folder)")
        return
    budget, stride, seeds = Budget(700, 128, 0.01), 3, 3
    if options.quick:
        budget, stride, seeds = Budget(4, 20, 0.01), 100, 1
    found = weather_forecast.run(
        options.out, options.cells, budget, seed=options.seed, stride=stride, seeds=seeds
    )
    write_json(options.out / "latent_ode_weather.json", found)


if __name__ == "__main__":
    main()
