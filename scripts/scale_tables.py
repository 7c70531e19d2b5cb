"""The tables of docs/scale.md and docs/score-without-torch.md, from the JSON files in figures/."""

from __future__ import annotations

from markdown_tables import figures, number, table

MADE = {
    "ranges": "made: positive, bounded, real",
    "integers": "made: two integers, a real one",
    "us_zipcodes": "ZIP codes",
    "galaxy_photometry": "galaxies",
    "magic_gamma": "MAGIC gamma",
    "miniboone_partial": "MiniBooNE",
}
# What `cnf fit` calls the maps of a typed table, which are not chosen, and a map by splines.
TRANSFORMS = {"given": "by column", "Gaussianized columns, whitened": "splines, whitened"}


def many_rows() -> str:
    """Time and memory of a fit and of scores."""
    found = figures("many_rows")
    read, fit, score = (found[part] for part in ("read", "fit", "score"))
    rows = (
        ("fit, seconds to its first update", number(fit["seconds_to_first_update"], 0)),
        (f"fit, seconds in all, {found['steps']} steps", number(fit["seconds"], 0)),
        ("fit, peak memory in MB, that of the program included", number(fit["peak_megabytes"], 0)),
        ("files opened a second", f"{1e3 / read['milliseconds_a_file']:,.0f}"),
        ("rows read a second", f"{read['rows_a_second']:,.0f}"),
        ("scores, rows a second of processors", f"{score['rows_a_processor_second']:,.0f}"),
        ("scores, rows a second by the clock", f"{score['rows_a_second']:,.0f}"),
        ("scores, of the slowest file", f"{score['slowest_file']:,.0f}"),
        ("scores, of the fastest file", f"{score['fastest_file']:,.0f}"),
        ("scores, peak memory in MB", number(score["peak_megabytes"], 0)),
    )
    return table(("", f"{found['rows']:,} × {found['columns']} in {found['files']} files"), rows)


def export_parity() -> str:
    """Exported models beside the models."""
    found = figures("export_parity")
    rows = [
        (name, str(each["columns"]), each["base"], TRANSFORMS.get(each["transform"], each["transform"]),
         number(each["farthest_move"], 1), f"{each['compared']:,}",
         f"{each['largest_difference']:.1e}", str(each["beyond_the_limit"]),
         f"{each['rounding_of_torch']:.1e}", number(each["speed_beside_torch"], 2))
        for key, name in MADE.items()
        for each in [found[key]]
    ]  # fmt: skip
    header = (
        *("table", "columns", "base", "transform", "farthest move, nats", "rows compared"),
        *("largest difference, nats", "beyond the limit", "rounding of torch", "speed / torch"),
    )
    return table(header, rows)
