"""The tables of docs/questions.md, from the JSON files in figures/."""

from __future__ import annotations

from statistics import mean

from markdown_tables import figures, number, table


def anomalies() -> str:
    """AUC of every score on every table, and their means."""
    found = figures("anomalies")
    ways = list(next(iter(found.values()))["auc"])
    best = max(ways, key=lambda way: mean(each["auc"][way] for each in found.values()))
    rows = [(name, *(number(each["auc"][way], 3) for way in ways)) for name, each in found.items()]
    means = [number(mean(each["auc"][way] for each in found.values()), 3) for way in ways]
    rows.append(
        ("mean", *(f"**{each}**" if way == best else each for way, each in zip(ways, means)))
    )
    return table(("ordinary rows, odd rows", *ways), rows)


def alarms() -> str:
    """False alarms beside their level, and how often the corrupted cell is named first."""
    found = figures("anomalies")
    rows = []
    for name, each in found.items():
        shares = [
            f"{number(share, 3)} ± {number(error, 3)}" for share, error in each["alarms"].values()
        ]
        named = [f"{number(100 * share, 0)} %" for share in each["named first"].values()]
        rows.append((name, *shares, *named))
    levels = [f"p ≤ {level}" for level in next(iter(found.values()))["alarms"]]
    return table(("ordinary rows", *levels, "moved cell", "swapped cell"), rows)


def imputation() -> str:
    """CRPS and coverage of every imputer."""
    methods = ("cnf", "miceforest", "IterativeImputer")
    rows = []
    for name, found in figures("imputation").items():
        scores = [number(found[method]["crps"], 3) for method in methods]
        covered = [f"{number(100 * found[method]['covered'], 1)} %" for method in methods]
        seconds = ", ".join(number(found[method]["seconds"], 0) for method in methods)
        rows.append((name, *scores, *covered, seconds))
    header = [f"{what}: {method}" for what in ("CRPS", "covered") for method in methods]
    return table(("table", *header, "processor seconds"), rows)


def redshift() -> str:
    """What every answer is worth."""
    rows = [
        (
            name,
            *(
                f"{number(each[score][0], 3)} ± {number(each[score][1], 3)}"
                for score in ("cde_loss", "log_likelihood")
            ),
            "{} ± {}".format(*(number(part, 4) for part in each["crps"])),
            number(each["pit"], 3),
            number(each["seconds"], 0),
        )
        for name, each in figures("redshift").items()
    ]
    header = ("CDE loss", "log-likelihood", "CRPS", "PIT", "processor seconds")
    return table(("answer", *header), rows)
