"""The results of an ablation, as tables.

A difference is off minus on, in nats per row: if it is positive, the ingredient helps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from ingredients import BASELINE, INGREDIENTS

DATA = (
    *("checkerboard", "pinwheel", "rings", "moons"),
    *("magic_gamma", "casp_protein", "gas_turbine", "california_housing"),
)
# A difference counts beyond so many standard errors, and so many nats.
SURE, NATS = 2.0, 0.005
FEWEST_DATA = 4  # the toys, or the tables
MEDIAN = 0.455  # of the chi-squared distribution with one degree of freedom


def split(key: str) -> tuple[str, str, int]:
    name, data, seed = key.split(" | ")
    return name, data, int(seed)


def chance(found: dict) -> dict[str, float]:
    """Of each data set, the standard deviation of a difference from one seed to another, pooled
    over the ingredients that have several; with one seed, what the differences of most
    ingredients leave for it."""
    spreads: dict[str, list[float]] = {}
    runs: dict[tuple[str, str], list[float]] = {}
    for key, cell in found.items():
        if "difference" in cell:
            runs.setdefault(split(key)[:2], []).append(cell["difference"])
    for (_, data), values in runs.items():
        if len(values) > 1:
            spreads.setdefault(data, []).append(float(np.var(values, ddof=1)))
    one_seed: dict[str, list[float]] = {}
    for (_, data), values in runs.items():
        if values[0]:  # else the two fits were the same
            one_seed.setdefault(data, []).append(values[0] ** 2)
    # The median: an ingredient that matters also spreads more. Of the square of a normal number it
    # is MEDIAN of the mean.
    return {
        data: (float(np.median(spreads.get(data, values))) / MEDIAN) ** 0.5
        for data, values in one_seed.items()
    }


class Effect(NamedTuple):
    """Off minus baseline on a data set: nats a row, the standard errors over rows and over seeds,
    and evaluations a row; what the fit costs, over the baseline's; and the number of seeds."""

    nats: float
    over_rows: float
    over_seeds: float
    nfe: float
    cost: float
    seeds: int

    @property
    def clear(self) -> bool:
        error = float(np.hypot(self.over_rows, self.over_seeds))
        return abs(self.nats) > max(SURE * error, NATS)


def effects(found: dict) -> dict[str, dict[str, Effect]]:
    """By ingredient and data set, in the order of the table of ingredients."""
    by_chance, cells = chance(found), {}
    for key, cell in found.items():
        name, data, seed = split(key)
        if "difference" in cell:
            base = found[f"{BASELINE.name} | {data} | {seed}"]
            more = cell["nfe"] - base["nfe"], cell["cost"] / base["cost"]
            run = (cell["difference"], cell["error"], *more)
            cells.setdefault(name, {}).setdefault(data, []).append(run)
    return {
        ingredient.name: {
            data: Effect(
                nats=float(np.mean([run[0] for run in runs])),
                over_rows=float(np.linalg.norm([run[1] for run in runs]) / len(runs)),
                over_seeds=by_chance.get(data, 0.0) / len(runs) ** 0.5,
                nfe=float(np.mean([run[2] for run in runs])),
                cost=float(np.mean([run[3] for run in runs])),
                seeds=len(runs),
            )
            for data, runs in cells[ingredient.name].items()
        }
        for ingredient in INGREDIENTS
        if ingredient.name in cells
    }


def verdict(by_data: dict[str, Effect]) -> str:
    """By the rule: on how many data sets an ingredient helps and harms, if on any; it is within
    noise everywhere only after two seeds on all data sets that it could matter to."""
    clear = {data: effect for data, effect in by_data.items() if effect.clear}
    helps = [data for data, effect in clear.items() if effect.nats > 0]
    harms = [data for data, effect in clear.items() if effect.nats < 0]
    said = [f"{word} {len(some)}" for word, some in (("helps", helps), ("harms", harms)) if some]
    if said:
        return ", ".join(said)
    seeds = min(effect.seeds for effect in by_data.values())
    if seeds > 1 and len(by_data) >= FEWEST_DATA:
        return "within noise everywhere"
    return f"open: within noise on {len(by_data)}, seeds {seeds}"


def report(found: dict) -> str:
    """Markdown tables of what was found."""
    names = [name for name in DATA if any(f"| {name} |" in key for key in found)]
    lines = [
        "| left out | " + " | ".join(names) + " | evaluations | cost | seeds | verdict |",
        "|---" * (len(names) + 5) + "|",
    ]
    baseline = {}
    for key, cell in found.items():
        name, data, _ = split(key)
        if name == BASELINE.name:
            baseline.setdefault(data, []).append((cell["nll"], cell["nfe"]))
    nll, nfe = ({data: np.mean(runs, 0)[k] for data, runs in baseline.items()} for k in (0, 1))
    row = " | ".join(f"{nll[data]:.3f}" for data in names if data in nll)
    lines.append(f"| baseline: gap or NLL | {row} | | | | |")
    row = " | ".join(f"{nfe[data]:.0f}" for data in names if data in nfe)
    lines.append(f"| baseline: evaluations | {row} | {np.mean(list(nfe.values())):.0f} | | | |")
    for name, by_data in effects(found).items():
        cells = [shown(by_data.get(data)) for data in names]
        more = np.mean([effect.nfe for effect in by_data.values()])
        cost = np.mean([effect.cost for effect in by_data.values()]) - 1
        seeds = min(effect.seeds for effect in by_data.values())
        rest = f"{more:+.1f} | {cost:+.0%} | {seeds} | {verdict(by_data)}"
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {rest} |")
    return "\n".join([*lines, "", *calibrations(found)])


def shown(effect: Effect | None) -> str:
    """Nats with both standard errors, rows and seeds; bold where the rule counts it."""
    if effect is None:
        return "–"
    text = f"{effect.nats:+.3f} ± {effect.over_rows:.3f} ± {effect.over_seeds:.3f}"
    return f"**{text}**" if effect.clear else text


def calibrations(found: dict) -> Iterator[str]:
    """The lines of the table on calibration."""
    sides: dict[str, list[dict]] = {}
    for key, cell in found.items():
        if "off" in cell:
            name = split(key)[0]
            sides.setdefault(BASELINE.name, []).append(cell["on"])
            sides.setdefault(name, []).append(cell["off"])
    if sides:
        yield "| calibration without | error bound / error | covered, mean | covered, least | evaluations |"
        yield "|---|---|---|---|---|"
    for name, runs in sides.items():
        ratio, covered, nfe = (
            np.array([run[part] for run in runs]) for part in ("ratio", "covered", "nfe")
        )
        yield (
            f"| {name} | {np.median(ratio):.1f} | {covered.mean():.4f} | {covered.min():.3f}"
            f" | {nfe.mean():.1f} |"
        )
