"""README and docs: their code runs, their links lead somewhere, their tables are those of figures/."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pages import RUN, UNRUN, blocks, commands, program

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FOLDERS = [".", "docs", "docs/tutorials", "docs/how-to", "docs/contributing"]  # whose code runs
README_BYTES, README_NUMBERS = 6144, 60
LINK = re.compile(r"!?\[[^]]*\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run_pages(pages: list[Path], folder: Path, **environment: str) -> None:
    """Run the code of pages in a folder, in one process with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "tests" / "pages.py", *pages],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def with_code(folder: str) -> list[Path]:
    """The pages of a folder with code; that of an index runs before the others."""
    pages = [page for page in PAGES if page.parent == ROOT / folder and page.name != "index.md"]
    return [page for page in pages if blocks(page.read_text())]


@pytest.mark.slow
def test_code_of_the_readme_runs(tmp_path):
    run_pages(with_code("."), tmp_path, CNF_STEPS="3")


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS[1:])
def test_code_of_the_pages_runs(folder, tmp_path):
    """`make pages` runs these, and continuous integration does."""
    run_pages(with_code(folder), tmp_path)


@pytest.mark.slow
def test_packages_that_blocks_need_are_installed():
    """So that `make pages` skips none of them; Java is no package, and may be missing."""
    found = [block for page in PAGES for block in blocks(page.read_text())]
    assert {name for block in found for name in block.missing} <= {"java"}


def reason(words: list[str]) -> str | None:
    """How the list of lines that do not run begins this one, if it does."""
    line = shlex.join(program(words)[1])
    return next((start for start in UNRUN if line.startswith(start)), None)


def shell_lines(page: Path) -> list[list[str]]:
    found = blocks(page.read_text())
    return [words for block in found if block.language == "sh" for words in commands(block)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_runs_or_has_a_reason_not_to(page):
    text = page.read_text()
    opened = re.findall(r"^ *```(.*)$", text, re.MULTILINE)[::2]
    code = [language for language in opened if language not in ("", "{eval-rst}")]
    assert code == [block.language for block in blocks(text)]
    assert set(code) <= {"python", "sh"}
    assert not code or name_of(page.parent) in FOLDERS
    for words in shell_lines(page):
        assert program(words)[1][0] in RUN or reason(words), words


def test_no_reason_is_out_of_use():
    assert {reason(words) for page in PAGES for words in shell_lines(page)} - {None} == set(UNRUN)


@pytest.mark.slow
def test_code_of_the_readme_runs_in_its_seconds(tmp_path):
    run_pages([ROOT / "README.md"], tmp_path, CNF_FULL_BUDGETS="1")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_pictures_are_there(page):
    for link in LINK.findall(page.read_text()):
        target, _, anchor = link.partition("#")
        if re.match(r"https?:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_scripts_targets_and_sources_that_pages_name_exist(page):
    text = page.read_text()
    for script in re.findall(r"\b(?:scripts|tests)/\w+\.py", text):
        assert (ROOT / script).is_file(), script
    for room in re.findall(r"`(cnf/[\w/]+(?:\.py)?)`", text):
        assert (ROOT / room).exists(), room
    makefile = (ROOT / "Makefile").read_text()
    code = "\n".join(re.findall(r"`(make [^`]+)`", text))
    lines = [
        words for block in blocks(text) if block.language == "sh" for words in commands(block)
    ]
    targets = re.findall(r"make ([\w-]+)", code) + [w[1] for w in lines if w[0] == "make"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        links = (link.partition("#")[0] for link in LINK.findall(page.read_text()))
        found = {(page.parent / link).resolve() for link in links if link.endswith(".md")}
        waiting += found - reached
    assert set(PAGES) <= reached


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= README_BYTES
    assert len(re.findall(r"\d+(?:[.,]\d+)*", text)) <= README_NUMBERS


def test_tables_are_those_of_the_figures():
    script = ROOT / "scripts" / "doc_tables.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"run `make tables`: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tables_are_whole(page):
    """Every line of a table has as many cells as its header."""
    for table in re.findall(r"(?:^\|.*\|\n)+", page.read_text(), re.MULTILINE):
        cells = {len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line)))
                 for line in table.splitlines()}  # fmt: skip
        assert len(cells) == 1, table.splitlines()[0]


def project() -> dict:
    """The table of pyproject.toml that describes the package."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_versions_agree():
    version = project()["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    pins = dict(
        re.findall(r"^([\w-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    )
    hook = (ROOT / ".pre-commit-config.yaml").read_text()
    assert f"rev: v{pins['ruff']}" in hook


def test_the_lowest_versions_are_those_promised():
    promised = dict(each.split(">=") for each in project()["dependencies"])
    text = (ROOT / "constraints-lowest.txt").read_text()
    tested = dict(re.findall(r"^([\w-]+)==(\S+)", text, re.MULTILINE))
    assert tested.keys() - {"polars", "openpyxl", "pyparsing", "click"} == promised.keys()
    # Of torch, the comment in that file says why a newer one is tested.
    for name in promised.keys() - {"torch"}:
        low, parts = promised[name].split("."), tested[name].split(".")
        assert parts[: len(low)] == low and set(parts[len(low) :]) <= {"0", "1"}, name
