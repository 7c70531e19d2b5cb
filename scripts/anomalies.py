"""Detection of odd rows and odd cells: a fitted density against outlier detectors, on ten tables.

    pip install pyod        # the detectors; without it, only the density is scored
    CNF_SHARED_DATA=... python scripts/anomalies.py            # figures/anomalies.json

Each table (see `odd_tables`) has ordinary and odd rows. Of the ordinary rows, 60 % are for training, 20 %
are the reference of `explain`, and 20 % are held out together with as many odd rows. The area under the
curve (AUC) says how well a score separates the two: 1 is perfect, ½ is chance. Our scores are −log p of
the row, its conformal p-value, the sum of the surprises of its cells, and the rank of its worst cell. The
detectors of pyod run at their defaults, on columns standardized by the training rows.

The false alarm rate is the fraction of held-out ordinary rows with a p-value of at most α. It is shown
with the standard error from the test rows and the reference. For corrupted cells, one random cell of an
ordinary row is shifted by five standard deviations up or down, or swapped with that of another ordinary
row, and `explain` names a column. A swapped cell may be an ordinary one in its new row.

Each fit has a budget of processor seconds on one thread."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from odd_tables import TABLES, WITH_SCIKIT_LEARN
from real_tables import FOLDER
from results import read_json, write_json
from sklearn.metrics import roc_auc_score

import cnf
from cnf.tables.explaining import Explanation

try:
    from pyod.models.copod import COPOD
    from pyod.models.ecod import ECOD
    from pyod.models.iforest import IForest
    from pyod.models.knn import KNN
    from pyod.models.lof import LOF
except ImportError:
    DETECTORS: dict[str, Callable[[], Any]] = {}
else:
    DETECTORS = {
        "IForest": lambda: IForest(random_state=0),
        **{"LOF": LOF, "ECOD": ECOD, "COPOD": COPOD, "KNN": KNN},
    }

TRAINED, HELD_OUT, CORRUPTED = 10_000, 1_000, 200  # rows at most
LEVELS = (0.01, 0.05, 0.1)
DEVIATIONS = 5.0


def parts(ordinary: pd.DataFrame, odd: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
    """Rows to learn from, of reference, held out, and odd ones."""
    source = np.random.default_rng(seed)
    ordinary, odd = (rows.iloc[source.permutation(len(rows))] for rows in (ordinary, odd))
    first, second = len(ordinary) * 6 // 10, len(ordinary) * 8 // 10
    held_out = ordinary[second:][:HELD_OUT]
    chosen = (ordinary[:first][:TRAINED], ordinary[first:second][:HELD_OUT], held_out)
    return [rows.reset_index(drop=True) for rows in (*chosen, odd[: len(held_out)])]


def detected(train: pd.DataFrame, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """The scores of pyod's detectors, high where a row is odd."""
    mean, deviation = train.mean(), train.std()
    learned, judged = (((part - mean) / deviation).to_numpy() for part in (train, rows))
    return {
        name: make().fit(learned).decision_function(judged) for name, make in DETECTORS.items()
    }


def densities(
    model: cnf.TableFlow, rows: pd.DataFrame, found: Explanation
) -> dict[str, np.ndarray]:
    """Our scores, high where a row is odd."""
    log_prob = model.log_prob(rows).nan_to_num(nan=-torch.inf).numpy()
    surprise = found.surprise.to_numpy()
    scores = {
        "−log p": -log_prob,
        "p-value": -found.p_value.to_numpy(),
        "surprises": surprise.sum(1),
        "worst rank": found.rank.to_numpy().max(1),
    }
    return {name: np.nan_to_num(score) for name, score in scores.items()}


def alarms(p_value: np.ndarray, reference: int) -> dict[str, list[float]]:
    """At each level the share of p-values no larger, and its standard error under the level."""
    rows = 1 / len(p_value) + 1 / reference
    return {
        str(level): [float((p_value <= level).mean()), (level * (1 - level) * rows) ** 0.5]
        for level in LEVELS
    }


def corrupted(rows: pd.DataFrame, train: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Rows with one cell moved or swapped, and which column it was."""
    source = np.random.default_rng(seed)
    some = rows[:CORRUPTED]
    at = np.arange(len(some)), source.integers(some.shape[1], size=len(some))
    sign = source.choice([-1.0, 1.0], size=len(some))
    moved, swapped = (some.to_numpy(copy=True) for _ in range(2))
    moved[at] += sign * DEVIATIONS * train.std().to_numpy()[at[1]]
    swapped[at] = rows.to_numpy()[source.permutation(len(rows))[: len(some)], at[1]]
    frames = {"moved": moved, "swapped": swapped}
    return {
        "columns": some.columns[at[1]],
        **{way: pd.DataFrame(cells, columns=some.columns) for way, cells in frames.items()},
    }


def study(name: str, seconds: float, seed: int, **budget: Any) -> dict[str, Any]:
    """All figures of one table."""
    train, reference, test, odd = parts(*TABLES[name](), seed)
    both = pd.concat([test, odd], ignore_index=True)
    truth = np.repeat([0, 1], [len(test), len(odd)])
    start = time.process_time()
    budget = budget or {"seconds": seconds, "clock": time.process_time}
    model = cnf.fit_table(train, any_subset=True, seed=seed, **budget)
    spent = time.process_time() - start
    found = model.explain(both, reference=reference)
    scores = densities(model, both, found) | detected(train, both)
    spoiled = corrupted(test, train, seed)
    named = {
        way: model.explain(spoiled[way], reference=reference).column.to_numpy()
        for way in ("moved", "swapped")
    }
    return {
        "rows": len(train),
        "columns": train.shape[1],
        "seconds": spent,
        "auc": {way: float(roc_auc_score(truth, score)) for way, score in scores.items()},
        "alarms": alarms(found.p_value.to_numpy()[: len(test)], len(reference)),
        "named first": {
            way: float((columns == spoiled["columns"]).mean()) for way, columns in named.items()
        },
    }


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--only", nargs="+", choices=TABLES, help="which tables")
    parser.add_argument("--seconds", type=float, default=20, help="processor seconds per fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="a trial run: one table, few training steps"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    if not DETECTORS:
        print("pyod is not installed: no detectors")
    names, budget = options.only or list(TABLES), {}
    if options.quick:
        names, budget = [WITH_SCIKIT_LEARN[0]], {"steps": 20}
    elif not FOLDER.is_dir():
        print(f"no folder {FOLDER}: set CNF_SHARED_DATA for the other tables")
        names = [name for name in names if name in WITH_SCIKIT_LEARN]
    path = options.out / "anomalies.json"
    results = {} if options.quick else read_json(path)
    for name in names:
        results[name] = found = study(name, options.seconds, options.seed, **budget)
        areas = "  ".join(f"{way} {area:.3f}" for way, area in found["auc"].items())
        print(f"{name}: {areas}; named first {found['named first']}", flush=True)
        write_json(path, {each: results[each] for each in TABLES if each in results})


if __name__ == "__main__":
    main()
