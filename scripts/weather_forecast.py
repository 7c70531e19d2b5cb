"""Ten-day weather forecasts by a latent ODE and by a GRU, and baselines without training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import weather
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from results import Cell, kept
from series_peers import Budget, count, peer_like, train
from torch import Tensor, nn

from cnf import plotting
from cnf.neural_ode import LatentODE, Series, fit_latent_ode
from cnf.plotting.style import ACCENT, DATA, INK, MODEL, styled

LATENT_ODE = {"latent": 8, "hidden": 25, "units": 32, "horizon": 10.0, "steps": 8, "noise": 0.9}


@dataclass(frozen=True)
class Result:
    """Mean squared error over held-out values, all and by channel, in variances of the channel."""

    method: str
    seed: int | None
    mse: float
    channels: dict[str, float]

    def __str__(self) -> str:
        seed = "" if self.seed is None else f"seed {self.seed}"
        return f"{self.method:<20}{seed:<8}{self.mse:>8.4f}" + "".join(
            f"{v:>8.3f}" for v in self.channels.values()
        )


HEADER = f"{'':<28}{'MSE':>8}" + "".join(f"{name:>8}" for name in weather.CHANNELS)


def validator(method: str, forecast: Tensor, targets: Series, seed: int | None = None) -> Result:
    """The errors of a forecast (windows, 10, channels)."""
    errors, mask = (forecast - targets.values).square(), targets.mask
    channels = {
        name: errors[..., k][mask[..., k]].mean().item() for k, name in enumerate(weather.CHANNELS)
    }
    return Result(method, seed, errors[mask].mean().item(), channels)


def difference(first: Tensor, second: Tensor, targets: Series) -> tuple[float, float]:
    """First minus second mean squared error, over all values, and its standard error over
    windows."""
    gap = (first - targets.values).square() - (second - targets.values).square()
    rows = gap.masked_fill(~targets.mask, 0.0).sum((1, 2)) * len(gap) / targets.mask.sum()
    return rows.mean().item(), (rows.std() / len(rows) ** 0.5).item()


def fit(train_windows: weather.Windows, test: weather.Windows, budget: Budget, seed: int) -> Cell:
    """Train both sides to forecast, and forecast the test windows (windows, 10, channels)."""
    observed, targets = train_windows.observed(), train_windows.targets()
    torch.manual_seed(seed)
    model = LatentODE(len(weather.CHANNELS), **LATENT_ODE)
    peer = peer_like(model, nn.GRU, len(weather.CHANNELS))
    # With beta = 0 the forecast is judged by what it says of the days ahead, given those before.
    fit_latent_ode(model, observed, targets, **asdict(budget), beta=0.0, seed=seed)

    def loss(rows: Tensor) -> Tensor:
        aim = targets.take(rows)
        means = peer.roll(observed.take(rows), aim.times)
        return -peer.score(means, aim.values, aim.mask).sum() / aim.mask.sum()

    train(peer, loss, len(observed), **asdict(budget), seed=seed)
    days = test.targets().times
    generator = torch.Generator().manual_seed(seed + 2)
    prediction = model.predict(test.observed(), days, draws=30, generator=generator)
    with torch.no_grad():
        rolled = peer.roll(test.observed(), days)
    sizes = {"latent_ode_parameters": count(model), "gru_parameters": count(peer)}
    return sizes, {"mean": prediction.mean, "deviation": prediction.deviation, "rolled": rolled}


@styled
def draw_weather(
    forecasts: dict[str, Tensor], mean: Tensor, deviation: Tensor, test: weather.Windows
) -> Figure:
    """A forecast with its uncertainty, and the error against the days ahead."""
    page, axes = plotting.figure(1, 2, panel=(3.2, 2.3))
    draw_window(axes[0, 0], mean, deviation, test)
    ax, targets = axes[0, 1], test.targets()
    colors = {"last value": DATA, "mean by day of year": INK, "GRU": ACCENT, "latent ODE": MODEL}
    for name, forecast in forecasts.items():
        errors = (forecast - targets.values).square().masked_fill(~targets.mask, 0.0).sum((0, 2))
        ax.plot(
            range(1, weather.AHEAD + 1),
            errors / targets.mask.sum((0, 2)),
            color=colors[name],
            label=name,
        )
    ax.set(xlabel="days ahead", title="mean squared error, all channels", ylim=(0, None))
    ax.legend(loc="lower right", fontsize=6)
    return page


def draw_window(ax: Axes, mean: Tensor, deviation: Tensor, test: weather.Windows) -> None:
    """The test window whose daily high was furthest from normal on its last readable day."""
    channel = weather.CHANNELS.index("TMAX")
    observed, targets = test.observed(), test.targets()
    row = (observed.values[:, -1, channel].abs() * targets.mask[..., channel].all(1)).argmax()
    mean, deviation = mean[row, :, channel], deviation[row, :, channel]
    for series, color, name in ((observed, INK, "read"), (targets, DATA, "held out")):
        seen = series.mask[row, :, channel]
        ax.scatter(
            series.times[row][seen],
            series.values[row, seen, channel],
            s=7,
            color=color,
            label=name,
        )
    days = targets.times[row]
    low, high = mean - 1.96 * deviation, mean + 1.96 * deviation
    ax.fill_between(days, low, high, color=MODEL, alpha=0.2, linewidth=0, label="central 95 %")
    ax.plot(days, mean, color=MODEL, label="latent ODE")
    ax.axhline(0, color=DATA, linewidth=0.5, zorder=0)
    ax.set(xlabel="days", title="daily high, deviations from normal")
    ax.legend(loc="upper left", fontsize=6)


def run(
    out: Path, cells: Path | None, budget: Budget, *, seed: int, stride: int, seeds: int
) -> dict:
    """Forecasts of both networks from several seeds beside those that need no training."""
    parts = weather.split(stride, seed)
    test = parts["test"]
    targets = test.targets()
    plain = {
        "last value": test.last_values(),
        "mean by day of year": torch.zeros_like(targets.values),
    }
    results = [validator(name, forecast, targets) for name, forecast in plain.items()]
    print(
        f"\n{len(parts['train'].values):,} windows to learn from, {len(test.values):,} to validator by"
    )
    print(HEADER, *results, sep="\n", flush=True)
    gaps = []
    for start in range(seed, seed + seeds):
        compute = partial(fit, parts["train"], test, budget, start)
        sizes, found = kept(cells, f"weather {start}", compute)
        pair = {"GRU": found["rolled"], "latent ODE": found["mean"]}
        results += [validator(name, forecast, targets, start) for name, forecast in pair.items()]
        gaps.append(difference(found["mean"], found["rolled"], targets))
        print(
            *results[-2:],
            f"latent ODE − GRU: {gaps[-1][0]:+.4f} ± {gaps[-1][1]:.4f}",
            sep="\n",
            flush=True,
        )
    page = draw_weather(plain | pair, found["mean"], found["deviation"], test)
    plotting.save(page, out / "latent_ode_weather.png")
    forecasts = [asdict(result) for result in results]
    return {**sizes, "forecasts": forecasts, "latent_ode_minus_gru": gaps}
