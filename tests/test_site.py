"""The checker of the built documentation finds what it is there to find."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "check_site.py"


def checked(site: Path, body: str) -> subprocess.CompletedProcess:
    """The check of a site of two pages, of which the first has this body."""
    (site / "_sources").mkdir(exist_ok=True)
    (site / "index.html").write_text(body)
    (site / "other.html").write_text('<h1 id="here">Other</h1>')
    for name in ("index", "other"):
        (site / "_sources" / f"{name}.md.txt").touch()
    index = site / "searchindex.js"
    if not index.exists():
        known = json.dumps({"docnames": ["index", "other"]})
        index.write_text(f"Search.setIndex({known})")
    return subprocess.run([sys.executable, SCRIPT, site], capture_output=True, text=True)


@pytest.mark.parametrize(
    "body",
    [
        '<a href="other.html#here">',
        '<p id="a b"><a href="#a%20b">',
        '<a href="https://pytorch.org">',
    ],
)
def test_a_sound_site_passes(body, tmp_path):
    done = checked(tmp_path, body)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "body",
    [
        '<a href="gone.html">',
        '<a href="other.html#there">',
        '<a href="#nowhere">',
        '<img src="gone.png">',
        '<script src="https://example.org/x.js"></script>',
        '<link rel="stylesheet" href="//example.org/x.css">',
    ],
)
def test_dead_links_and_foreign_files_fail(body, tmp_path):
    done = checked(tmp_path, body)
    assert done.returncode == 1
    assert "index.html: " in done.stdout


def test_a_page_that_the_search_does_not_know_fails(tmp_path):
    (tmp_path / "searchindex.js").write_text('Search.setIndex({"docnames": ["index"]})')
    done = checked(tmp_path, "")
    assert done.returncode == 1 and "other" in done.stdout
