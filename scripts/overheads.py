"""What a command and a training step cost beside the computing that they are for.

    python scripts/overheads.py            # writes figures/overheads.json
    python scripts/overheads.py --quick    # few repeats

The script measures the processor seconds of commands in processes of their own, and those of one step of
the optimizers for fields of two widths, compared with their namesakes in torch. All use one thread. It
prints medians of interleaved runs, with the smallest and largest."""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from results import write_json
from torch import nn

import cnf
from cnf.fields import GatedField
from cnf.training.optimizers import Adam, Muon

WIDTHS, COLUMNS, SETTINGS = (64, 128), 10, {"lr": 1e-4, "weight_decay": 0.01}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    repeats = 1 if args.quick else args.repeats
    found = {"commands": commands(repeats), "steps": steps(2 if args.quick else 100, repeats)}
    for part in found.values():
        for name, (median, least, most) in part.items():
            print(f"{name:40} {median:9.3f}  ({least:.3f} to {most:.3f})")
    write_json(args.out / "overheads.json", found)


def commands(repeats: int) -> dict[str, list[float]]:
    """Processor seconds of commands on a small typed table."""
    random = np.random.default_rng(0)
    table = pd.DataFrame({"a": random.normal(size=200), "b": random.choice(["x", "y"], 200)})
    with tempfile.TemporaryDirectory() as folder:
        table.to_csv(f"{folder}/t.csv", index=False)
        cnf.fit_table(table, steps=4).save(f"{folder}/m")
        asked = (
            "--help",
            "fit --help",
            "info m",
            "score m t.csv -o s.csv",
            "sample m -n 9 -o d.csv",
        )
        runs = {f"cnf {line}": command(line.split(), folder) for line in asked}
        return in_turn({name: children(run) for name, run in runs.items()}, repeats)


def command(line: list[str], folder: str) -> Callable[[], object]:
    """A command in a process of its own."""
    arguments = [sys.executable, "-m", "cnf", *line]
    return lambda: subprocess.run(arguments, cwd=folder, check=True, capture_output=True)


def children(run: Callable[[], object]) -> Callable[[], float]:
    """The processor seconds of the processes of a run."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return seconds


def steps(count: int, repeats: int) -> dict[str, list[float]]:
    """Processor milliseconds of a step of each optimizer, for the matrices of a field or all of it."""
    runs: dict[str, Callable[[], float]] = {}
    for width in WIDTHS:
        matched: dict[str, Any] = {**SETTINGS, "adjust_lr_fn": "match_rms_adamw"}
        sides = {
            "Adam": Adam(parameters(width), **SETTINGS),
            "torch.optim.AdamW": torch.optim.AdamW(parameters(width), **SETTINGS),
            "Muon": Muon(parameters(width, axes=2), **SETTINGS),
            "torch.optim.Muon": torch.optim.Muon(parameters(width, axes=2), **matched),
        }
        runs |= {f"{name}, width {width}": many(side, count) for name, side in sides.items()}
    return in_turn(runs, repeats)


def parameters(width: int, axes: int | None = None) -> list[nn.Parameter]:
    """The parameters of a field, or those with a number of axes, with random gradients."""
    torch.manual_seed(0)
    field = GatedField(COLUMNS, hidden=(width, width))
    found = [part for part in field.parameters() if axes is None or part.ndim == axes]
    for part in found:
        part.grad = torch.randn_like(part)
    return found


def many(optimizer: Any, count: int) -> Callable[[], float]:
    """Milliseconds of one of many steps."""

    def milliseconds() -> float:
        start = time.process_time()
        for _ in range(count):
            optimizer.step()
        return 1e3 * (time.process_time() - start) / count

    return milliseconds


def in_turn(runs: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Median, smallest and largest of interleaved runs."""
    seen: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            seen[name].append(run())
    return {
        name: [statistics.median(found), min(found), max(found)] for name, found in seen.items()
    }


if __name__ == "__main__":
    main()
