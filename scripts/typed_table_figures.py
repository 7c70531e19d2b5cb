"""The tables on typed tables in README and docs/; see `figure_tables.py`."""

from __future__ import annotations

from markdown_tables import figures, number, table


def typed_tables() -> str:
    """Samples told from rows."""
    rows = []
    for name, found in figures("tables").items():
        areas = [found["auc"][each] for each in ("cnf", "gaussian copula", "independent")]
        told = [f"{area:.3f} ± {error:.3f}" for area, error in areas]
        rows.append((name, f"{found['steps']:,}", f"{found['seconds']:.0f}", *told))
    header = ("table", "training steps", "processor seconds", "cnf", "Gaussian copula")
    return table((*header, "independent columns"), rows)


def typed_speed() -> str:
    """Time to score and to draw a row of a typed table, and what its score is worth."""
    found = figures("benchmark_tables")["speed"]
    rows = [
        ("score a row, ms", number(found["score_milliseconds_a_row"], 3)),
        ("draw a row, ms", number(found["sample_milliseconds_a_row"], 3)),
        ("evaluations a row", number(found["evaluations_a_row"], 1)),
        ("error bound, median and 99 %, nats", ", ".join(f"{bar:.1e}" for bar in found["bar"])),
    ]
    return table((f"{found['rows']:,} rows of 15 columns", ""), rows)


def budgets() -> str:
    """Processor seconds of fits beside those asked for."""
    measured = figures("benchmark_tables")
    found = measured["budgets"]
    took = {(b["rows"], b["columns"], b["holes"]): b for b in found}
    rows = [
        (
            f"{rows:,}",
            f"{columns}",
            *(number(took[rows, columns, h]["took"], 1) for h in (False, True)),
        )
        for rows, columns in dict.fromkeys((b["rows"], b["columns"]) for b in found)
    ]
    asked = f"{found[0]['asked']:g}"
    rows.append(("imports alone", "", number(measured["imports"], 1), ""))
    head = ("rows", "columns", f"`--seconds {asked}`, no holes", "a tenth of the cells missing")
    return table(head, rows)


def corpus() -> str:
    """What became of the tables of R's packages, and of which something did not."""
    found = figures("corpus")["summary"]
    of = f"of {found['tables']}"
    rows = [
        ("fitted", f"{found['fitted']} {of}"),
        ("every row has a finite score, every drawn cell is valid", f"{found['whole']} {of}"),
        ("ended with a traceback", f"{found['tracebacks']}"),
        ("median processor seconds", number(found["median_seconds"], 1)),
        (
            "took over 60 processor seconds, over 2 GB",
            f"{found['over_seconds']}, {found['over_memory']}",
        ),
    ]
    return table(
        ("tables", f"{found['tables']}, drawn at random from {found['listed']:,} names"), rows
    )
