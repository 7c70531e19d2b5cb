"""The tables of README and docs/, from the JSON files in figures/; `doc_tables.py` inserts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import mean, median
from typing import Any

import house_metrics
from circular_tables import circular_speed, directional, earth_events, real_angles, seams
from error_tables import bounds_by_flow, bounds_by_region, errors, two_moons
from house_metrics import Metrics, Spread
from markdown_tables import figures, number, numbers, table
from question_tables import alarms, anomalies, imputation, redshift
from scale_tables import export_parity, many_rows
from typed_table_figures import budgets, corpus, typed_speed, typed_tables

from cnf.deprecation import RENAMED

NAMES = {
    "galaxy_photometry": "galaxies, 7 columns",
    "casp_protein": "CASP protein, 10",
    "magic_gamma": "MAGIC gamma, 10",
    "power_hourly": "hourly power, 4",
    "california_housing": "California housing, 9",
    "gas_turbine": "gas turbine, 11",
    "miniboone_partial": "MiniBooNE, 43",
}
LONG = ("casp_protein", "magic_gamma", "gas_turbine")
TOYS = (
    *("checkerboard", "8gaussians", "pinwheel", "2spirals"),
    *("rings", "circles", "moons", "swissroll"),
)
SPEED_ROWS = (
    ("log_prob", "zuko", "zuko's CNF at its defaults"),
    ("log_prob", "zuko, equal error", "zuko's CNF at an error no larger than ours"),
    ("log_prob", "torchdiffeq, FFJORD's way", "torchdiffeq, trace by automatic differentiation"),
    ("gradient", "zuko", "zuko's CNF at its defaults"),
    ("gradient", "zuko, equal error", "zuko's CNF at an error no larger than ours"),
    ("gradient", "torchdiffeq, adjoint", "continuous adjoint, trace by automatic differentiation"),
    ("sample", "zuko", "zuko's CNF at its defaults"),
    ("sample", "zuko, equal error", "zuko's CNF at an error no larger than ours"),
)


def difference(found: dict[str, Any]) -> str:
    return f"{number(found['difference'], 3)} ± {number(found['difference_se'], 3)}"


def results() -> str:
    """The table of the README: mean of our seeds, best peer, paired difference."""
    accuracy = figures("benchmark_accuracy")
    rows = []
    for key, name in NAMES.items():
        found = accuracy[f"{key}, 150 s"]
        peer = found["best_peer"]
        ours, theirs = (number(mean(found["nll"][each]), 2) for each in ("cnf", peer))
        gain = f"{number(found['difference'], 2)} ± {number(found['difference_se'], 2)}"
        rows.append((name.split(",")[0], f"**{ours}**", f"{theirs} ({peer})", gain))
    return table(("table", "cnf", "best peer", "difference"), rows)


def accuracy(keys: Sequence[str], seconds: int, methods: Sequence[str]) -> str:
    """Test NLL of every method, and the paired difference of ours to the best peer."""
    found = figures("benchmark_accuracy")
    rows = []
    for key in keys:
        entry = found[f"{key}, {seconds} s"]
        ours = f"**{numbers(entry['nll']['cnf'], 3)}**"
        theirs = [numbers(entry["nll"][method], 3) for method in methods]
        evaluations = numbers((note["nfe"] for note in entry["notes"]["cnf"]), 0)
        rows.append((NAMES[key], ours, *theirs, difference(entry), evaluations))
    header = ("table", "cnf", *methods, "cnf − best peer, paired", "evaluations a row")
    return table(header, rows)


def tables_150() -> str:
    return accuracy(list(NAMES), 150, ("NSF", "MAF", "mixture", "zuko CNF", "kernels"))


def tables_600() -> str:
    return accuracy(LONG, 600, ("NSF", "MAF", "mixture"))


def variants() -> str:
    """Our own variants, where they were run."""
    found = figures("benchmark_accuracy")
    names = ("cnf", "cnf, no budget", "flow matching", "cnf, adjoint")
    rows = [
        (NAMES[key], *(numbers(nll.get(name, ()), 3) or "–" for name in names))
        for key in ("casp_protein", "magic_gamma")
        for nll in [found[f"{key}, 150 s"]["nll"]]
    ]
    header = ("default", "no evaluation budget", "flow matching alone", "continuous adjoint")
    return table(("table", *header), rows)


def toys() -> str:
    """Gaps to the exact density."""
    found = figures("benchmark_accuracy")
    rows = []
    for toy in TOYS:
        minute, long = found[f"{toy}, 60 s"]["nll"], found[f"{toy}, 300 s"]["nll"]
        ours = f"**{number(median(minute['cnf']), 4)}**"
        mixture = numbers(minute.get("mixture", ()), 4) or "–"
        nsf, slow = number(minute["NSF"][0], 4), number(long["cnf"][0], 4)
        rows.append((toy, ours, nsf, mixture, slow))
    header = ("toy", "cnf, 60 s", "NSF, 60 s", "Gaussian mixture, 60 s", "cnf, 300 s")
    return table(header, rows)


def toys_of_the_picture() -> str:
    rows = [
        (each["toy"], f"{number(each['gap'], 4)} ± {number(each['gap_se'], 4)}",
         number(each["nfe"], 0))
        for each in figures("density_estimation")
    ]  # fmt: skip
    return table(("toy", "gap, nats", "evaluations a row"), rows)


def clock() -> str:
    """Test NLL at each budget of seconds beside the best peer, and when ours passes its last."""
    rows, seconds = [], []
    for key, found in figures("benchmark_time").items():
        seconds = sorted(found["cnf"], key=float)
        ours = [found["cnf"][each]["nll"] for each in seconds]
        peers = [run for way, run in found.items() if way != "cnf"]
        theirs = [min(run[each]["nll"] for run in peers) for each in seconds]
        cells = [f"{number(a, 2)} ({number(b, 2)})" for a, b in zip(ours, theirs)]
        passed = next((each for each, a in zip(seconds, ours) if a < theirs[-1]), None)
        name = {**NAMES, "us_zipcodes": "US zip codes, 2"}[key]
        rows.append((name, *cells, "–" if passed is None else f"{passed} s"))
    return table(("table", *(f"{each} s" for each in seconds), "passes the peers' last at"), rows)


def small_tables() -> str:
    """Ten-fold cross-validation."""
    rows = [
        (name, *(number(found["nll"][each], 3) for each in ("cnf", "Gaussian", "mixture")),
         difference(found))
        for name, found in figures("small_tables").items()
    ]  # fmt: skip
    return table(("table", "cnf", "Gaussian", "mixture", "cnf − better of the two"), rows)


def speed() -> str:
    """Medians as multiples of our time."""
    columns = figures("benchmark_speed")["columns"]

    def ratio(task: str, side: str, ours: str = "cnf") -> list[str]:
        pairs = [(found[task][side], found[task][ours]) for found in columns.values()]
        return [f"{theirs['median'] / mine['median']:.3g}" for theirs, mine in pairs]

    rows = [(f"`{task}`: {name}", *ratio(task, side)) for task, side, name in SPEED_ROWS]
    plain = ratio("field", "plain forward pass", "cnf, with divergence")
    rows.append(("plain forward pass with torch's tanh, against field and divergence", *plain))
    return table(("", *(f"{dim} columns" for dim in columns)), rows)


def speed_errors() -> str:
    """Mean absolute errors of log_prob in nats."""
    columns = figures("benchmark_speed")["columns"]
    sides = {"cnf": "cnf", "zuko": "zuko's CNF at its defaults"}
    sides["zuko, equal error"] = "zuko's CNF at an error no larger than ours"
    rows = [
        (name, *(f"{found['error'][side]['mean']:.0e}" for found in columns.values()))
        for side, name in sides.items()
    ]
    return table(("mean error, nats", *(f"{dim} columns" for dim in columns)), rows)


def costs() -> str:
    """Time to score one row."""
    found = figures("benchmark_speed")["cost_by_rows"]
    rows = [(f"{int(rows):,}", number(cost, 1)) for rows, cost in found.items()]
    return table(("rows scored at once", "microseconds a row"), rows)


def optimizer_steps() -> str:
    """Milliseconds of a step of each optimizer."""
    found = figures("overheads")["steps"]
    widths = sorted({int(name.rpartition(" ")[2]) for name in found})
    rows = [
        (f"`{name}`", *(number(found[f"{name}, width {width}"][0], 2) for width in widths))
        for name in ("Adam", "torch.optim.AdamW", "Muon", "torch.optim.Muon")
    ]
    return table(("milliseconds a step", *(f"width {width}" for width in widths)), rows)


def command_seconds() -> str:
    """Processor seconds of commands on a small table."""
    found = figures("overheads")["commands"]
    rows = [(f"`{name}`", number(seconds, 1)) for name, (seconds, *_) in found.items()]
    return table(("command", "processor seconds"), rows)


def orders() -> str:
    rows = [
        (name, number(order, 2), f"{expected}")
        for (name, order), expected in zip(figures("euler")["orders"].items(), (1, 2, 4, 5))
    ]
    return table(("solver", "order, measured", "order, theory"), rows)


def spirals() -> str:
    rows = [
        (f"{each['observed']}", *(number(each[side], 3) for side in ("latent_ode", "rnn", "gru")))
        for each in figures("latent_ode")
    ]
    return table(("points observed", "latent ODE", "RNN", "GRU"), rows)


def weather() -> str:
    rows = [
        (
            each["method"],
            "–" if each["seed"] is None else f"{each['seed']}",
            number(each["mse"], 3),
        )
        for each in figures("latent_ode_weather")["forecasts"]
    ]
    return table(("forecast", "seed", "mean squared error"), rows)


def energies() -> str:
    found = figures("variational")
    flows = list(dict.fromkeys(each["flow"] for each in found))
    rows = [
        (energy, *(
            f"{number(each['kl'], 3)} ± {number(each['kl_se'], 3)}"
            for each in found if each["energy"] == energy
        ))
        for energy in dict.fromkeys(each["energy"] for each in found)
    ]  # fmt: skip
    return table(("energy", *flows), rows)


def augmented() -> str:
    found = figures("augmented")["results"]
    rows = []
    for problem in dict.fromkeys(each["problem"] for each in found):
        means = []
        for key, digits in (("loss", 4), ("late_nfe", 0)):
            for augment in (0, 5):
                runs = [
                    each[key]
                    for each in found
                    if (each["problem"], each["augment"]) == (problem, augment)
                ]
                means.append(number(mean(runs), digits))
        rows.append((problem, *means))
    header = ("loss: plain", "loss: augmented", "evaluations: plain", "evaluations: augmented")
    return table(("problem", *header), rows)


def house() -> str:
    """The table of the source, as the script that measures it prints it."""
    found = {
        name: Metrics(
            **{
                key: Spread(**each) if isinstance(each, dict) else each
                for key, each in kept.items()
            }
        )
        for name, kept in figures("house_metrics").items()
    }
    return house_metrics.table(found) + "\n"


def walks() -> str:
    """How many files of each room two walks through the package enter."""
    found = figures("files_entered")
    rooms = {
        walk: Counter(name.partition("/")[0] for name in names) for walk, names in found.items()
    }
    rows = [
        (f"`{walk}`", f"{len(found[walk])}", ", ".join(f"{room} {n}" for room, n in each.items()))
        for walk, each in rooms.items()
    ]
    return table(("call", "files", "by subpackage, in the order of entry"), rows)


def renamed() -> str:
    """The names of the last release, and what they are called now."""
    rows = [
        (f"`{module}.{old}`", f"`{new.replace(':', '.')}`")
        for module, names in RENAMED.items()
        for old, new in names.items()
    ]
    return table(("0.1", "0.2"), rows)


def gaussians() -> str:
    """How near the map between two Gaussians is to the optimal one."""
    found = figures("gaussian_transport")
    rows = [
        (
            str(case["dim"]),
            *(f"{number(100 * case[name], 2)} %" for name in ("map", "map_of_gaussians")),
            *(number(case[name], 4) for name in ("kl_source", "kl_target")),
            *(number(case[name], 3) for name in ("ratio", "ratio_of_gaussians")),
            f"{number(100 * case['covered'], 1)} %",
            number(case["seconds"], 0),
        )
        for case in found
    ]
    densities = ("KL of the source, nats", "KL of the target")
    ratios = ("log-ratio, off by", "of fitted Gaussians", "bounds cover")
    header = ("columns", "map, off by", "of fitted Gaussians", *densities, *ratios, "seconds")
    return table(header, rows)


def transport_peers() -> str:
    """Maps between toys beside those of torchcfm: means over seeds."""
    found = figures("transport_peers")
    ways = list(found[0]["maps"])
    rows = []
    for pair in dict.fromkeys(tuple(case["pair"]) for case in found):
        cases = [case for case in found if tuple(case["pair"]) == pair]
        law = mean(case["w2_of_the_law"] for case in cases)
        for measure, digits in (("w2", 3), ("energy", 3)):
            means = [mean(case["maps"][way][measure] for case in cases) for way in ways]
            least = law if measure == "w2" else mean(case["shortest"] for case in cases)
            name = "W₂ to the target" if measure == "w2" else "energy of paths"
            rows.append((" → ".join(pair), name, *(number(v, digits) for v in (*means, least))))
        kl = number(mean(case["kl"] for case in cases), 3)
        rows.append((" → ".join(pair), "KL, nats", kl, *["none"] * (len(ways) - 1), "0"))
    return table(("from → to", "measure", *ways, "of the laws"), rows)


def domain_shift() -> str:
    """Real tables carried to each other, and regressions with weights."""
    rows = []
    for name, case in figures("domain_shift").items():
        areas = [number(case["auc"][each], 3) for each in ("before", "carried")]
        for model in case["rmse"]["unweighted"]:
            errors = [found[model] for found in case["rmse"].values()]
            digits = 0 if errors[0] > 1000 else 2
            rows.append((name, *areas, model, *(number(each, digits) for each in errors)))
    ways = list(figures("domain_shift")["Beijing, 2010 to 2014"]["rmse"])
    header = (
        "shift",
        "AUC before",
        "AUC carried",
        "regression",
        *(f"error, {way}" for way in ways),
    )
    return table(header, rows)


def snapshots() -> str:
    """How near a flow is to a law at a time that it has not seen."""
    found = figures("snapshots")
    ways = list(found[0]["w1"])
    rows = [
        (
            case["law"],
            number(case["left_out"], 1),
            f"{number(case['kl'], 4)} ± {number(case['kl_se'], 4)}",
            *(number(case["w1"][way], 3) for way in ways),
        )
        for case in found
    ]
    named = [f"W₁: {'rows of the law' if way == 'law' else way}" for way in ways]
    return table(("law", "left out", "KL, nats", *named), rows)


def growth() -> str:
    """How near density and growth of a known law come, at a time left out and at the last one."""
    rows = [
        (
            number(case["left_out"], 1),
            number(found["time"], 1),
            f"{number(found['kl'], 4)} ± {number(found['kl_se'], 4)}",
            *(f"{100 * found[f'rate_of_{what}']:.1f} %" for what in ("rows", "all")),
            *(f"{part['found']:.2f} ({part['rate']:.2f})" for part in found["branches"]),
        )
        for case in figures("growth")
        for found in case["at"].values()
    ]
    rates = ("rate of rows, off by", "of all", "fast branch (law)", "slow branch (law)")
    return table(("left out", "seen at", "KL, nats", *rates), rows)


def synthetic() -> str:
    """Draws told from the rows they were made from, and how alike the tables are."""
    shown = ("detection by trees", "trend", "shape", "α-precision", "β-recall", "memorization")
    rows = []
    for name, runs in figures("synthetic").items():
        found = [run["measures"] for run in runs.values()]
        for way in found[0]:
            means = [mean(run[way][each] for run in found) for each in shown]
            rows.append((name.split(",")[0], way, *(number(each, 3) for each in means)))
    return table(("table", "made by", *shown), rows)


TABLES: dict[str, Callable[[], str]] = {
    "gaussians": gaussians,
    "transport-peers": transport_peers,
    "domain-shift": domain_shift,
    "snapshots": snapshots,
    "growth": growth,
    "synthetic": synthetic,
    "results": results,
    "tables-150": tables_150,
    "tables-600": tables_600,
    "clock": clock,
    "variants": variants,
    "toys": toys,
    "toys-of-the-picture": toys_of_the_picture,
    "small-tables": small_tables,
    "typed-tables": typed_tables,
    "speed": speed,
    "speed-errors": speed_errors,
    "optimizer-steps": optimizer_steps,
    "command-seconds": command_seconds,
    "costs": costs,
    "typed-speed": typed_speed,
    "budgets": budgets,
    "errors": errors,
    "bounds-by-region": bounds_by_region,
    "bounds-by-flow": bounds_by_flow,
    "two-moons": two_moons,
    "orders": orders,
    "spirals": spirals,
    "weather": weather,
    "energies": energies,
    "augmented": augmented,
    "house": house,
    "renamed": renamed,
    "walks": walks,
    "corpus": corpus,
    "many-rows": many_rows,
    "export-parity": export_parity,
    "anomalies": anomalies,
    "imputation": imputation,
    "redshift": redshift,
    "alarms": alarms,
    "directional": directional,
    "earth-events": earth_events,
    "real-angles": real_angles,
    "seams": seams,
    "circular-speed": circular_speed,
}
