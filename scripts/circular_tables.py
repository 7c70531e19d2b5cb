"""The tables of docs/angles.md, from the JSON files in figures/."""

from __future__ import annotations

from statistics import mean, stdev

from markdown_tables import figures, number, table

# Test NLL of Riemannian flow matching and of the Riemannian score model, as published.
PUBLISHED = {
    "volcano": (-7.93, -4.92),
    "earthquake": (-0.28, -0.19),
    "flood": (0.42, 0.48),
    "fire": (-1.86, -1.33),
}


def directional() -> str:
    """Gaps to known densities."""
    rows = [
        (name, f"{number(found['gap'], 4)} ± {number(found['standard_error'], 4)}",
         number(found["entropy"], 3), number(found["evaluations"], 0))
        for name, found in figures("directional").items()
    ]  # fmt: skip
    return table(("law", "gap, nats", "entropy", "evaluations a row"), rows)


def earth_events() -> str:
    """Test NLL of events on the globe, beside published figures."""
    rows = []
    for name, runs in figures("earth_events").items():
        for floor in dict.fromkeys(run["floor"] for run in runs):
            tests = [run["test"] for run in runs if run["floor"] == floor]
            ours = f"{number(mean(tests), 3)} ± {number(stdev(tests), 3)}"
            published = (number(nll, 2) for nll in PUBLISHED[name])
            rows.append((name, f"{floor:g}", ours, *published))
    header = ("events", "least width, radians", "cnf", "Riemannian flow matching", "score model")
    return table(header, rows)


def real_angles() -> str:
    """Held-out NLL with columns as angles and as whole numbers."""
    rows = [
        (
            name,
            *(
                f"{number(found[way]['nll'], 3)} ± {number(found[way]['standard_error'], 3)}"
                for way in ("angles", "integers")
            ),
            "{} ± {}".format(*(number(part, 3) for part in found["gain"])),
        )
        for name, found in figures("real_angles").items()
    ]
    return table(("table", "NLL, as angles", "integers", "gain of angles, paired"), rows)


def seams() -> str:
    """|Δ log p| over the seam, and between neighbors elsewhere."""
    rows = [
        (name, column, *(
            number(part, 2)
            for way in ("angles", "integers")
            for part in found[way]["seams"][column]
        ))
        for name, found in figures("real_angles").items()
        for column in found["angles"]["seams"]
    ]  # fmt: skip
    header = ("over the seam", "elsewhere", "over the seam", "elsewhere")
    labels = [
        f"{where}, {way}" for where, way in zip(header, ("angle", "angle", "integer", "integer"))
    ]
    return table(("table", "column", *labels), rows)


def circular_speed() -> str:
    """Costs of rows that wrap."""
    rows = [
        (name, number(found["microseconds"][0], 1), number(found["ratio"], 2),
         number(found["evaluations"], 0), number(found["ratio on one grid"], 2))
        for name, found in figures("circular_speed").items()
    ]  # fmt: skip
    header = ("", "microseconds a row", "ratio", "evaluations a row", "ratio on one grid")
    return table(header, rows)
