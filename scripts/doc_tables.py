"""Writes the tables of README, CHANGELOG and docs/ from the numbers in figures/.

    python scripts/doc_tables.py            # rewrites every table between its two comments
    python scripts/doc_tables.py --check    # changes nothing; exit 1 if a table is not up to date

A page marks a table with the comments `<!-- table: NAME -->` before it and `<!-- end of table -->` after
it, where NAME is one of `figure_tables.TABLES`.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from figure_tables import TABLES

ROOT = Path(__file__).parent.parent
MARKED = re.compile(
    r"(?P<head><!-- table: (?P<name>[\w-]+) -->\n)(?P<body>.*?)(?P<foot><!-- end of table -->)",
    re.DOTALL,
)


def pages() -> list[Path]:
    """README, the changelog, and everything in docs/."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def with_tables(text: str) -> str:
    """A page with each of its tables written anew."""

    def written(found: re.Match[str]) -> str:
        return found["head"] + TABLES[found["name"]]() + found["foot"]

    return MARKED.sub(written, text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if a table is outdated"
    )
    check = parser.parse_args().check
    stale = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        fresh = with_tables(text)
        if fresh != text:
            stale.append(str(page.relative_to(ROOT)))
            if not check:
                page.write_text(fresh, encoding="utf-8")
    print("\n".join(stale) or "all tables are up to date")
    raise SystemExit(bool(check and stale))


if __name__ == "__main__":
    main()
