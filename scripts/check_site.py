"""Checks the built documentation: `python scripts/check_site.py build/site`.

Every internal link must lead to an existing file and anchor. The site may load nothing from elsewhere, so
that it works without a network. Every page must be reachable from the root page, and the search must find
it.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

ELSEWHERE = re.compile(r"(?:[a-z]+:)?//|mailto:|data:")


@dataclass
class Page(HTMLParser):
    """What a page links to, loads, and can be linked by."""

    path: Path
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    places: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attributes if value}
        self.places |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and "href" in found:
            self.loaded.append(found["href"])
        elif "src" in found:
            self.loaded.append(found["src"])

    def wrong(self) -> list[str]:
        """Links that lead nowhere, and what comes from elsewhere."""
        foreign = [each for each in self.loaded if ELSEWHERE.match(each)]
        links = [each for each in self.links + self.loaded if not ELSEWHERE.match(each)]
        return foreign + [each for each in links if not self.leads(each)]

    def leads(self, link: str) -> bool:
        """Whether an internal link has a target."""
        name, _, place = unquote(link).partition("#")
        target = (self.path.parent / name.partition("?")[0]).resolve() if name else self.path
        if target.suffix != ".html" or not place:
            return target.is_file()
        return target.is_file() and place in page_at(target).places


@cache
def page_at(path: Path) -> Page:
    return Page(path)


def searched(site: Path) -> set[str]:
    """The pages that the search index knows."""
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    return set(index["docnames"])


def main(site: Path) -> None:
    paths = sorted(site.resolve().rglob("*.html"))
    wrong = [f"{path}: {link}" for path in paths for link in page_at(path).wrong()]
    sources = {str(p.relative_to(site / "_sources"))[: -len(".md.txt")]
               for p in (site / "_sources").rglob("*.md.txt")}  # fmt: skip
    wrong += [f"not found by the search: {page}" for page in sources - searched(site)]
    print("\n".join(wrong) or f"{len(paths)} pages, every internal link leads somewhere")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
