"""Exported models compared with the originals: the largest difference on unseen rows, and the speed.

    CNF_SHARED_DATA=... python scripts/export_parity.py     # writes figures/export_parity.json
    python scripts/export_parity.py --quick                 # one small model, few rows

The script fits tables of 2 to 43 columns from the folder CNF_SHARED_DATA and two generated ones, one with
ranges and one with integers. It exports each model, and scores held-out rows and fresh draws of the model
with onnxruntime, in blocks of 1,024, in a process without torch. Differences are counted for rows that
the file accepts and that the model did not have to solve again. The limit is 1e-4 nats, or 1e-5 of the
value. Rows beyond it are counted: their error bounds must cover the difference, which is compared with
the effect of single precision on the model's own scores. A model whose field is zero tests nothing and is
rejected. Speeds are rows per second of processor time on one thread, medians of interleaved runs. For
plain tables, torch does no second solves; for typed ones, it reads a data frame. The script counts the
rows of a plain table whose error bound, close to the tolerance, falls on either side of it; they must be
fewer than 1e-3 of all."""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import torch
from results import write_json

import cnf
from cnf.export import ScoreProgram, write_program
from cnf.flows import NormalBase
from cnf.tables.loading import wrapped

TABLES = ("us_zipcodes", "galaxy_photometry", "magic_gamma", "miniboone_partial")
BLOCK, TIMED, REPEATS, WORST = 1024, 20_480, 3, 200
NATS, RELATIVE, MOVED, SAME_VERDICT = 1e-4, 1e-5, 1.0, 1 - 1e-3
WITHOUT_TORCH = """
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession("model.onnx", options)
x = np.load("x.npy")
parts = [session.run(None, {"x": x[k : k + 1024]}) for k in range(0, len(x), 1024)]
np.savez("found.npz", *map(np.concatenate, zip(*parts)))
assert not {"torch", "cnf"} & set(sys.modules)
"""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows, steps = (2_000, 40) if args.quick else (args.rows, args.steps)
    numbers: dict[str, Any] = {"rows": rows, "steps": steps}
    for name, table in tables(quick=args.quick):
        held_out = table[: len(table) // 5]
        numbers[name] = beside(fitted(name, table[len(held_out) :], steps), held_out, rows)
        print(name, numbers[name], flush=True)
    write_json(args.out / "export_parity.json", numbers)


def fitted(name: str, table: pd.DataFrame, steps: int) -> cnf.TableFlow:
    """A model of a table. Of many columns it has a normal base, which no mixture takes the place of."""
    dim = len(table.columns)
    if name in MADE or dim == 2:
        return cnf.fit_table(
            table, steps=steps, kinds=None if name in MADE else dict.fromkeys(table, "real")
        )
    flow = cnf.CNF(dim, base=NormalBase(dim))
    history = cnf.fit(flow, table.to_numpy(), steps=steps)
    model = wrapped(flow)
    model.history = history
    return model


def tables(*, quick: bool) -> Iterator[tuple[str, pd.DataFrame]]:
    """Names and rows, in random order."""
    for name, make in MADE.items():
        yield name, pd.DataFrame(make(np.random.default_rng(0).normal(size=(6_000, 3))))
    if quick or "CNF_SHARED_DATA" not in os.environ:
        return
    random = np.random.default_rng(0)
    for name in TABLES:
        path = Path(os.environ["CNF_SHARED_DATA"], name, "data.npz")
        with np.load(path, allow_pickle=False) as data:
            x = data["signal_subset" if "signal_subset" in data else "X"].astype(np.float64)
        order = random.permutation(len(x))[:30_000]
        yield name, pd.DataFrame(x[order], columns=[f"x{j}" for j in range(x.shape[1])])


def ranges(z: np.ndarray) -> dict[str, np.ndarray]:
    """A positive, a bounded and a real column."""
    share = 1 / (1 + np.exp(-z[:, 0] - z[:, 1]))
    return {"a": np.exp(z[:, 0]), "b": share, "c": z[:, 2] * z[:, 0]}


def integers(z: np.ndarray) -> dict[str, np.ndarray]:
    """Two columns of whole numbers, and a real one."""
    return {
        "n": np.round(40 * np.exp(0.5 * z[:, 0])),
        "k": np.round(200 + 30 * z[:, 1] + 20 * np.abs(z[:, 0])),
        "c": z[:, 2] + np.sin(2 * z[:, 0]),
    }


MADE: dict[str, Callable[[np.ndarray], dict[str, np.ndarray]]] = {
    "ranges": ranges,
    "integers": integers,
}


@torch.no_grad()
def beside(model: cnf.TableFlow, held_out: pd.DataFrame, rows: int) -> dict[str, Any]:
    """What the exported model differs by from the model, and how fast both are."""
    flow, program = model.flow, ScoreProgram(model)
    assert flow is not None
    draws = model.sample(rows, generator=torch.Generator().manual_seed(0))
    table = pd.concat([held_out, draws])[:rows].reset_index(drop=True).astype(float)
    moved = farthest(program, table[:500])
    if not moved > MOVED:
        raise SystemExit("the field moves no row: the comparison would prove nothing")
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        write_program(program, f"{folder}/model.onnx")
        exported, size = time.process_time() - start, Path(folder, "model.onnx").stat().st_size
        found = without_torch(folder, table.to_numpy())
        session = runtime(f"{folder}/model.onnx")
    wanted = {name: part.numpy() for name, part in vars(model.evaluate(table)).items()}
    once = found["ok"] & (wanted["nfe"] == flow.solver.nfe)
    apart = np.abs(found["log_prob"] - wanted["log_prob"])[once]
    allowed = np.maximum(NATS, RELATIVE * np.abs(wanted["log_prob"]))[once]
    assert (apart <= np.maximum(allowed, wanted["error"][once])).all(), apart.max()
    worst = np.flatnonzero(once)[np.argsort(apart)[-WORST:]]
    rounding = rounded(model, table.iloc[worst], wanted["log_prob"][worst])
    verdicts = float((found["ok"] == (wanted["nfe"] == flow.solver.nfe)).mean())
    assert not model.plain or verdicts >= SAME_VERDICT, verdicts
    few = table[:TIMED]
    x, infinite = torch.tensor(few.to_numpy()), float("inf")
    ours, theirs = interleaved(
        lambda: flow.bind(tolerance=infinite).evaluate(x) if model.plain else model.evaluate(few),
        lambda: scored(session, x.numpy()),
    )
    choices = model.history.choices or {}
    return {
        "columns": len(program.columns), "typed": not model.plain, "evaluations": flow.solver.nfe,
        "base": flow.base.describe(), "transform": choices.get("preprocess", "by column"),
        "farthest_move": moved, "compared": int(once.sum()), "largest_difference": apart.max(),
        "beyond_the_limit": int((apart > allowed).sum()), "rounding_of_torch": rounding,
        "flagged": 1 - float(found["ok"].mean()), "other_verdicts": 1 - verdicts if model.plain else None,
        "export_seconds": exported, "bytes": size,
        "torch_rows_a_second": len(few) / ours, "onnx_rows_a_second": len(few) / theirs,
        "speed_beside_torch": ours / theirs,
    }  # fmt: skip


def rounded(model: cnf.TableFlow, table: pd.DataFrame, log_prob: np.ndarray) -> float:
    """Nats that single precision makes at most in the model's own scores of rows."""
    exact = copy.deepcopy(model).double().evaluate(table).log_prob.numpy()
    return float(np.abs(exact - log_prob).max())


def farthest(program: ScoreProgram, table: pd.DataFrame) -> float:
    """Nats that the field makes at most in the density of some rows."""
    x, known = program.rows.values(torch.tensor(table.to_numpy()))
    y, ladj = program.flow.preprocess(x[known])
    still = program.flow.base.log_prob(y.to(program.flow.dtype)) + ladj
    return (program.flow.log_prob(x[known]) - still).abs().max().item()


def without_torch(folder: str, x: np.ndarray) -> dict[str, np.ndarray]:
    """The file's scores, by a process that has onnxruntime and numpy alone."""
    np.save(f"{folder}/x.npy", x)
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], cwd=folder, check=True)
    with np.load(f"{folder}/found.npz") as found:
        return dict(zip(ScoreProgram.outputs, found.values()))


def runtime(path: str) -> onnxruntime.InferenceSession:
    """A session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


def scored(session: onnxruntime.InferenceSession, x: np.ndarray) -> dict[str, np.ndarray]:
    """The file's scores, by blocks."""
    blocks = [session.run(None, {"x": x[k : k + BLOCK]}) for k in range(0, len(x), BLOCK)]
    return dict(zip(ScoreProgram.outputs, map(np.concatenate, zip(*blocks))))


def interleaved(*runs: Callable[[], object]) -> list[float]:
    """Medians of processor time."""
    spent: list[list[float]] = [[] for _ in runs]
    for _ in range(REPEATS):
        for times, run in zip(spent, runs):
            start = time.process_time()
            run()
            times.append(time.process_time() - start)
    return [statistics.median(times) for times in spent]


if __name__ == "__main__":
    main()
