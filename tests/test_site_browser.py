"""The documentation in a real browser, opened from the disk, as `make docs` builds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import CONTRASTS, look, needs_browser, opened
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

SITE = Path(__file__).parent.parent / "build" / "site"
pytestmark = [
    pytest.mark.slow,
    needs_browser,
    pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="make docs builds the site"),
]
PAGES = [
    *(
        "index",
        "tables",
        "questions",
        "method",
        "benchmarks",
        "ablation",
        "gallery",
        "faq",
        "glossary",
    ),
    *("tutorials/first-density", "tutorials/table-to-report", "tutorials/latent-ode"),
    *("how-to/index", "how-to/choose-the-budget", "reference/cnf", "reference/commands"),
    *("scripts/index", "scripts/growth", "contributing/velocity-field", "changelog"),
]
LOWEST_CONTRAST = 4.5  # WCAG 2.1, level AA
# What reaches beyond the window, and does not scroll in a box of its own.
BEYOND = """
const boxes = ["auto", "scroll", "hidden"];
const scrolls = e => e && (boxes.includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
return [...document.querySelectorAll("article *")]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(e.parentElement))
  .map(e => e.outerHTML.slice(0, 120));
"""
FOCUS = """
const e = document.activeElement, style = getComputedStyle(e);
return [e.tagName, e.className, e.textContent.trim(), style.outlineStyle + style.boxShadow];
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with opened() as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser, scheme):
    look(browser, scheme=scheme)
    for page in PAGES:
        browser.get((SITE / f"{page}.html").as_uri())
        low = [each for each in browser.execute_script(CONTRASTS) if each[0] < LOWEST_CONTRAST]
        assert not low, (page, low[:5])


def test_a_telephone_scrolls_nothing_but_code_and_tables(browser):
    look(browser, width=360, height=740)
    for page in PAGES:
        browser.get((SITE / f"{page}.html").as_uri())
        assert not (beyond := browser.execute_script(BEYOND)), (page, beyond[:3])
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360, page


def test_the_search_works_from_the_disk(browser):
    look(browser)
    browser.get((SITE / "search.html").as_uri() + "?q=resume")
    found = WebDriverWait(browser, 20).until(
        lambda b: b.find_elements(By.CSS_SELECTOR, "#search-results li a")
    )
    assert any("resume-a-fit" in link.get_attribute("href") for link in found)


def test_the_keyboard_reaches_the_content_and_shows_where_it_is(browser):
    look(browser)
    browser.get((SITE / "index.html").as_uri())
    seen = []
    for _ in range(12):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        seen.append(browser.execute_script(FOCUS))
    assert "skip" in seen[0][1] and "content" in seen[0][2]
    assert any(tag == "INPUT" for tag, *_ in seen)
    assert any(tag == "A" and "Tutorials" in text for tag, _, text, _ in seen)
    assert all(ring != "nonenone" for *_, ring in seen), seen
