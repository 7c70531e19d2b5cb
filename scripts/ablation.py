"""How much does each ingredient of the recipe gain, in held-out nats and in evaluations?

    python scripts/ablation.py                    # writes figures/ablation.json, prints a table

The baseline is the full recipe. A fit with one ingredient switched off has the same rows, the same
seeds and the same number of training steps as its baseline, and their negative log-likelihoods are
compared row by row. The cost of training steps is measured relative to a small computation that is
timed between them, so that other work on the machine does not matter. Real tables are scored on the
validation rows of the benchmarks, and never on test rows; a ninth of the training rows validates
each fit. Every finished fit is saved, and a rerun continues after the last one. The ingredients are
listed in scripts/ingredients.py.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import real_tables
import torch
from ablation_report import DATA, report
from ingredients import BASELINE, CALIBRATION, INGREDIENTS, Fitted, Ingredient
from results import read_json, write_json
from threadpoolctl import threadpool_limits
from torch import Tensor

import cnf
from cnf.datasets import TOYS

TOY_ROWS, TOY_VALID, TOY_JUDGED = 100_000, 10_000, 20_000
DATA_SEED = 7  # of a toy's rows, which are not those of the benchmarks
CONFIRMED = 500  # rows whose true log-density tells what an error bar is worth


class Parts(NamedTuple):
    """Rows to learn from, to validate on within the fit, and to judge the ingredients by."""

    train: Tensor
    valid: Tensor
    judged: Tensor


class Cell(NamedTuple):
    """One fit, or one calibration of the baseline's flow."""

    ingredient: Ingredient
    data: str
    seed: int

    @property
    def key(self) -> str:
        return f"{self.ingredient.name} | {self.data} | {self.seed}"


@cache
def load(name: str, toy_rows: int) -> Parts:
    """Rows of a toy, or of a real table in units standardized by its training part."""
    if name in TOYS:
        sizes = (toy_rows, TOY_VALID, TOY_JUDGED)
        x = TOYS[name].sample(sum(sizes), torch.Generator().manual_seed(DATA_SEED))
        return Parts(*x.double().split(sizes))
    table = real_tables.load(name)
    train, valid = table.train.tensor_split((len(table.train) * 8 // 9,))
    return Parts(train, valid, table.valid)


@cache
def lowest_nll(name: str, toy_rows: int) -> float:
    """NLL of a toy's own density on the judged rows; zero for a table, whose density is unknown."""
    return -TOYS[name].log_prob(load(name, toy_rows).judged).mean().item() if name in TOYS else 0.0


class Stopwatch:
    """Called after every update: what a fit costs up to its last update, choices and validations
    included, in thousands of a small computation beside it."""

    EVERY = 10  # updates between two of the small computations

    def __init__(self) -> None:
        self.last = time.process_time()
        self.update_seconds: list[float] = []
        self.unit_seconds: list[float] = []
        self.matrix = torch.full((256, 128), 0.01)

    def __call__(self, trainer: object) -> None:
        start = time.process_time()
        self.update_seconds.append(start - self.last)
        if len(self.update_seconds) % self.EVERY == 0:
            for _ in range(10):
                torch.tanh(self.matrix @ self.matrix.T)
            self.unit_seconds.append(time.process_time() - start)
        self.last = time.process_time()

    @property
    def cost(self) -> float:
        """Of all updates; the first has what came before it."""
        units = [
            seconds / self.unit_seconds[min(k // self.EVERY, len(self.unit_seconds) - 1)]
            for k, seconds in enumerate(self.update_seconds)
        ]
        return sum(units) / 1000


class Ablation:
    """All cells, those done so far, and where they are kept."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.path = options.out / "ablation.json"
        self.found = read_json(self.path)

    def run(self) -> None:
        for cell in self.cells():
            if self.done(cell):
                continue
            start = time.process_time()
            with cell.ingredient.off():
                measure = self.calibrated if cell.ingredient in CALIBRATION else self.fitted
                self.found[cell.key] = measure(cell)
            write_json(self.path, self.found)
            if self.options.table:
                self.options.table.write_text(report(self.found) + "\n")
            spent = time.process_time() - start
            print(f"{cell.key}: {self.found[cell.key]} ({spent:.0f} s)", flush=True)

    def cells(self) -> Iterator[Cell]:
        """In the order in which they are worth their time."""
        chosen = [one for one in (*INGREDIENTS, *CALIBRATION) if self.wanted(one)]
        for first in (True, False):
            for seed in self.options.seeds:
                for ingredient in (BASELINE, *chosen):
                    for data in self.options.only:
                        cell = Cell(ingredient, data, seed)
                        if ingredient.first is first and self.matters(cell):
                            yield cell

    def done(self, cell: Cell) -> bool:
        """Whether it is written down; of a baseline, whether its rows are kept too."""
        kept = cell.ingredient is not BASELINE or self.kept(cell, "npy").exists()
        return kept and cell.key in self.found

    def wanted(self, ingredient: Ingredient) -> bool:
        words = self.options.ingredients
        return not words or any(word in ingredient.name for word in words)

    def matters(self, cell: Cell) -> bool:
        """Whether the cell differs from the baseline's, as far as that is known."""
        baseline = self.found.get(cell._replace(ingredient=BASELINE).key)
        if baseline is None:
            return True
        known = {name: baseline[name] for name in Fitted.__dataclass_fields__}
        return cell.ingredient.where(Fitted(**known))

    def kept(self, cell: Cell, ending: str) -> Path:
        """A file of the baseline beside this cell."""
        return self.options.cells / f"{cell.data}-{cell.seed}.{ending}"

    def fitted(self, cell: Cell) -> dict[str, object]:
        """Fit a flow without the ingredient, and compare it with the baseline row by row."""
        parts = load(cell.data, self.options.toy_rows)
        budget = self.options.toy_updates if cell.data in TOYS else self.options.updates
        seed = cell.seed + cell.ingredient.seed
        flow = cnf.CNF(dim=parts.train.shape[1])
        matching, likelihood = cell.ingredient.updates(*budget)
        stopwatch = Stopwatch()
        history = cnf.fit(
            flow, parts.train, parts.valid, seed=seed, steps=matching + likelihood,
            likelihood_share=likelihood / (matching + likelihood), callbacks=(stopwatch,),
            **cell.ingredient.settings,
        )  # fmt: skip
        with torch.no_grad():
            scores = flow.evaluate(parts.judged)
        lost = ~scores.log_prob.isfinite()
        log_prob = scores.log_prob.where(~lost, scores.log_prob[~lost].min()).double().numpy()
        found = {
            "nll": -log_prob.mean() - lowest_nll(cell.data, self.options.toy_rows),
            "nfe": scores.nfe.double().mean().item(),
            "lost": int(lost.sum()),
            "cost": stopwatch.cost,
            "rows": len(parts.train),
            "columns": flow.dim,
            "base": history.choices["base"],
            "preprocess": history.choices["preprocess"],
        }
        if cell.ingredient is BASELINE:
            np.save(self.kept(cell, "npy"), log_prob)
            flow.save(self.kept(cell, "safetensors"))
            return found
        difference = np.load(self.kept(cell, "npy")) - log_prob
        error = difference.std() / len(difference) ** 0.5
        return {**found, "difference": float(difference.mean()), "error": float(error)}

    @torch.no_grad()
    def calibrated(self, cell: Cell) -> dict[str, object]:
        """Calibrate the baseline's flow without the ingredient, and hold its bars against the
        truth; the same with the ingredient beside it."""
        parts = load(cell.data, self.options.toy_rows)
        flow, some = cnf.load(self.kept(cell, "safetensors")), parts.judged[:CONFIRMED]
        truth = exact(self.kept(cell, "safetensors"), cell.data, self.options.toy_rows)
        before = bars(flow, parts, some, truth)
        flow.calibrate(parts.train)
        return {"on": before, "off": bars(flow, parts, some, truth)}


@cache
@torch.no_grad()
def exact(path: Path, name: str, toy_rows: int) -> Tensor:
    """log p of a kept flow by dopri8 in float64."""
    rows, flow = load(name, toy_rows).judged[:CONFIRMED], cnf.load(path).double()
    flow.solver = cnf.Torchdiffeq("dopri8", rtol=1e-9, atol=1e-9)
    return flow.log_prob(rows.double())


def bars(flow: cnf.CNF, parts: Parts, some: Tensor, truth: Tensor) -> dict[str, float]:
    """What the error bars of a calibrated flow are worth."""
    scores, everything = flow.evaluate(some), flow.evaluate(parts.judged)
    error = (scores.log_prob.double() - truth).abs()
    return {
        "ratio": (scores.error.double() / error.clamp(min=1e-12)).median().item(),
        "covered": (scores.error.double() >= error).double().mean().item(),
        "nfe": everything.nfe.double().mean().item(),
    }


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = Path(__file__).parent.parent
    parser.add_argument("--out", type=Path, default=root / "figures")
    parser.add_argument(
        "--cells", type=Path, default=root / "demo" / "ablation", help="folder of the baselines"
    )
    parser.add_argument("--only", nargs="+", choices=DATA, help="which data sets")
    parser.add_argument("--ingredients", nargs="+", help="parts of the names of ingredients")
    budget = {"type": int, "nargs": 2, "metavar": ("MATCHING", "LIKELIHOOD")}
    parser.add_argument(
        "--updates", default=(250, 100), help="training steps of a fit to a table", **budget
    )
    parser.add_argument(
        "--toy-updates", default=(250, 150), help="training steps of a fit to a toy", **budget
    )
    parser.add_argument("--toy-rows", type=int, default=TOY_ROWS, help="training rows of a toy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--table", type=Path, help="file with the table of earlier runs")
    parser.add_argument(
        "--quick", action="store_true", help="a trial run: one toy, one ingredient"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    options.only = options.only or [
        name for name in DATA if name in TOYS or real_tables.there(name)
    ]
    if options.quick:
        options.only, options.seeds, options.ingredients = ["moons"], [0], ["stratified", "floors"]
        options.toy_updates, options.toy_rows, options.cells = (
            (10, 5),
            5_000,
            options.out / "cells",
        )
    for folder in (options.out, options.cells):
        folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    ablation = Ablation(options)
    with threadpool_limits(1):
        ablation.run()
    print(report(ablation.found))


if __name__ == "__main__":
    main()
