"""A classifier of continuous depth
================================

An ODE block compared with a residual network of equal size, on 8x8 digits.

Run it with::

    python scripts/ode_classifier.py            # writes figures/ode_classifier.png and .json

Both networks consist of Linear(64, 32), a trunk of 6,368 parameters, and Linear(32, 10). The trunk is four
residual blocks with hidden layers of 24 units, or an ODE whose velocity has one hidden layer of 96 units
and is trained by the adjoint. There are five seeds, each with its own held-out fifth of scikit-learn's
1,797 digits, so that every image is tested once. Memory is the largest number of bytes in live tensors
during one forward and backward pass."""

# sphinx_gallery_thumbnail_path = "../figures/ode_classifier.png"
from __future__ import annotations

import argparse
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from results import write_json
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

import cnf
from cnf import plotting
from cnf.neural_ode import CallCounter
from cnf.plotting.style import ACCENT, DATA, FAINT, INK, MODEL, styled

WIDTH, HIDDEN, BLOCKS = 32, 96, 4
BATCH, RATE, DECAY = 64, 5e-3, 1e-3
SOLVER = cnf.Torchdiffeq("dopri5", rtol=1e-3, atol=1e-3)
SEEDS = 5
ROWS = 256  # of the pass whose memory is measured


class Velocity(nn.Module):
    """A perceptron on (z, t)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH + 1, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(torch.cat([z, t.expand(*z.shape[:-1], 1)], -1))))


class Residual(nn.Module):
    """z + g(z), with a share of the hidden units of `Velocity`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = (
            nn.Linear(WIDTH, HIDDEN // BLOCKS),
            nn.Linear(HIDDEN // BLOCKS, WIDTH),
        )

    def forward(self, z: Tensor) -> Tensor:
        return z + self.last(torch.tanh(self.first(z)))


def network(trunk: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, WIDTH), trunk, nn.Linear(WIDTH, 10))


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@dataclass(frozen=True)
class Fold:
    """Images and labels to learn from and to test on."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def fold(seed: int) -> Fold:
    digits = load_digits()
    x, y = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)
    parts = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).chunk(SEEDS)
    rest = torch.cat([part for k, part in enumerate(parts) if k != seed])
    return Fold(x[rest], y[rest], x[parts[seed]], y[parts[seed]])


def train(net: nn.Sequential, data: Fold, *, seed: int, epochs: int) -> list[tuple[float, float]]:
    """Train with AdamW on one cycle of the learning rate.

    Returns the mean number of evaluations of an ODE's velocity forwards and backwards, epoch by
    epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    updates = epochs * -(-len(data.x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=updates)
    nfe = []
    for _ in range(epochs):
        counts = []
        for rows in torch.randperm(len(data.x), generator=generator).split(BATCH):
            counts.append(update(net, optimizer, data.x[rows], data.y[rows]))
            schedule.step()
        nfe.append(tuple(np.mean(counts, 0).tolist()))
    return nfe


def update(
    net: nn.Sequential, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor
) -> tuple[int, int]:
    """One step on a batch; evaluations of the trunk's velocity forwards and backwards."""
    trunk = net[1]
    with CallCounter(trunk.f if isinstance(trunk, cnf.ODEBlock) else trunk) as counter:
        loss = nn.functional.cross_entropy(net(x), y)
        forwards = counter.calls
        optimizer.zero_grad()
        loss.backward()
    optimizer.step()
    return forwards, counter.calls - forwards


@torch.no_grad()
def accuracy(net: nn.Module, data: Fold) -> float:
    """Share of the held-out images told rightly, in per cent."""
    return 100 * (net(data.x_test).argmax(-1) == data.y_test).double().mean().item()


@dataclass(frozen=True)
class Result:
    """One seed: accuracies in per cent, and evaluations forwards and backwards in every epoch."""

    seed: int
    ode: float
    residual: float
    nfe: list[tuple[float, float]]


def compare(seed: int, epochs: int) -> Result:
    """Both networks on one fold, from the same seed."""
    data = fold(seed)
    torch.manual_seed(seed)
    ode = network(cnf.ODEBlock(Velocity(), solver=SOLVER, gradient="adjoint"))
    torch.manual_seed(seed)
    residual = network(nn.Sequential(*(Residual() for _ in range(BLOCKS))))
    assert parameters(ode) == parameters(residual)
    nfe = train(ode, data, seed=seed, epochs=epochs)
    train(residual, data, seed=seed, epochs=epochs)
    return Result(seed, accuracy(ode, data), accuracy(residual, data), nfe)


class LiveBytes(TorchDispatchMode):
    """Follows every tensor that is made while it is open, until it is freed; `peak` is the most at
    once."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._made, out)
        return out

    def _made(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


def peak_bytes(trunk: nn.Module, x: Tensor) -> int:
    """Most bytes alive during a forward and backward pass through the trunk."""
    trunk(x).square().mean().backward()  # so that gradients and coefficients are there already
    with LiveBytes() as memory:
        trunk(x).square().mean().backward()
    return memory.peak


def memory_by_depth(depths: Sequence[int]) -> dict[str, list[int]]:
    """Peak bytes of fourth-order Runge-Kutta for each gradient, and of residual blocks, at each
    depth."""
    torch.manual_seed(0)
    x, f = torch.randn(ROWS, WIDTH), Velocity()
    found = {
        gradient: [
            peak_bytes(cnf.ODEBlock(f, solver=cnf.Grid.uniform(n, "rk4"), gradient=gradient), x)
            for n in depths
        ]
        for gradient in ("direct", "discrete", "adjoint")
    }
    blocks = [peak_bytes(nn.Sequential(*(Residual() for _ in range(n))), x) for n in depths]
    return {**found, "residual network": blocks}


@styled
def draw(results: Sequence[Result], depths: Sequence[int], memory: dict[str, list[int]]) -> Figure:
    page, axes = plotting.figure(1, 3, panel=(2.6, 2.6))
    draw_accuracy(axes[0, 0], results)
    draw_memory(axes[0, 1], depths, memory)
    draw_evaluations(axes[0, 2], np.array([result.nfe for result in results]))
    return page


def draw_accuracy(ax: Axes, results: Sequence[Result]) -> None:
    """Both accuracies of each seed, joined, and their means."""
    pairs = np.array([(r.residual, r.ode) for r in results]).T
    ax.plot([0, 1], pairs, color=FAINT, marker="o", markersize=3, linewidth=0.8)
    means = pairs.mean(1)
    ax.plot([0, 1], means, color=INK, marker="D", markersize=4)
    for place, side in ((0, "right"), (1, "left")):
        offset = (-8 if side == "right" else 8, 0)
        text = f"mean\n{means[place]:.2f} %"
        ax.annotate(
            text,
            (place, means[place]),
            xytext=offset,
            textcoords="offset points",
            ha=side,
            va="center",
        )
    ax.set(xlim=(-0.8, 1.8), xticks=[0, 1], xticklabels=["residual\nnetwork", "ODE"])
    ax.set(ylabel="held-out accuracy, %", title="digits, as many parameters")
    ax.margins(y=0.15)


def draw_memory(ax: Axes, depths: Sequence[int], memory: dict[str, list[int]]) -> None:
    colors = dict(zip(memory, (ACCENT, "#009e73", MODEL, DATA)))
    for name, values in memory.items():
        ax.plot(
            depths,
            np.array(values) / 2**20,
            color=colors[name],
            marker="o",
            markersize=2.5,
            label=name,
        )
    ax.set(
        xlabel="depth: steps of rk4, or blocks",
        ylabel="peak memory, MiB",
        title="memory against depth",
    )
    ax.set_ylim(bottom=0)
    ax.legend()


def draw_evaluations(ax: Axes, nfe: np.ndarray) -> None:
    """Evaluations (seeds, epochs, 2) over training, with the range of the seeds."""
    epochs = np.arange(1, nfe.shape[1] + 1)
    for way, (name, color) in enumerate(
        (("forwards", MODEL), ("backwards, by the adjoint", ACCENT))
    ):
        values = nfe[..., way]
        ax.plot(epochs, values.mean(0), color=color, label=name)
        ax.fill_between(epochs, values.min(0), values.max(0), color=color, alpha=0.2, linewidth=0)
    ax.set(xlabel="epoch", ylabel="evaluations in a pass", title="dopri5 at tolerance 1e-3")
    ax.set_ylim(bottom=0)
    ax.legend()


def report(results: Sequence[Result], depths: Sequence[int], memory: dict[str, list[int]]) -> None:
    for r in results:
        (first, back), (last, last_back) = r.nfe[0], r.nfe[-1]
        print(
            f"seed {r.seed}: ODE {r.ode:.2f} %, residual network {r.residual:.2f} %; evaluations"
            f" {first:.0f} + {back:.0f} at first, {last:.0f} + {last_back:.0f} at last"
        )
    gaps = np.array([r.ode - r.residual for r in results])
    spread = f"± {gaps.std(ddof=1) / len(gaps) ** 0.5:.2f} " if len(gaps) > 1 else ""
    print(f"ODE − residual network: {gaps.mean():+.2f} {spread}points, seeds: {len(gaps)}")
    for name, values in memory.items():
        growth = values[-1] / values[0]
        print(
            f"memory, {name}: {values[0]:,} bytes at {depths[0]}, {growth:.2f} times that at {depths[-1]}"
        )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument(
        "--quick", action="store_true", help="one epoch of one seed, shallow networks"
    )
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    seeds, epochs = (1, 1) if options.quick else (SEEDS, options.epochs)
    depths = [2, 4, 8] if options.quick else [2, 4, 8, 16, 24, 32, 48, 64]
    memory = memory_by_depth(depths)
    results = [compare(seed, epochs) for seed in range(seeds)]
    report(results, depths, memory)
    plotting.save(draw(results, depths, memory), options.out / "ode_classifier.png")
    found = {"results": results, "depths": depths, "memory": memory}
    write_json(options.out / "ode_classifier.json", found)


if __name__ == "__main__":
    main()
