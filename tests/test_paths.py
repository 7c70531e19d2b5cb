"""What is written where, and what a terminal or a picture makes of hostile names."""

import gzip
import os
import stat
import threading
import tracemalloc
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnf import plotting
from cnf.cli.output import escaped, require_writable, say
from cnf.files import _mine, atomic_path
from cnf.plotting.style import as_svg
from cnf.report.figures import picture
from cnf.tables import read_table

HOSTILE = (
    "$10-$20",
    "$\\frac{1}{",
    "<script>alert(1)</script>",
    "#ffffff",
    'x" id="y',
    "a\x1b[2Jb",
    "\u202egnp.exe",
    "line\nbreak",
    "nul\x00",
    "]]>",
    "-->",
    "&amp;",
    "url(#a)",
)


def write(path, text="new"):
    with atomic_path(path) as temporary:
        temporary.write_text(text)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_file_that_is_replaced_hands_on_its_permissions(tmp_path, mode):
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(mode)
    write(path)
    assert path.read_text() == "new" and stat.S_IMODE(path.stat().st_mode) == mode


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    path, found = tmp_path / "pipe", []
    os.mkfifo(path)
    require_writable(path)
    assert stat.S_ISFIFO(path.stat().st_mode)
    reader = threading.Thread(target=lambda: found.append(path.read_text()))
    reader.start()
    write(path)
    reader.join(timeout=10)
    assert found == ["new"] and stat.S_ISFIFO(path.stat().st_mode)
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_stays_a_device(tmp_path):
    before = Path(os.devnull).stat()
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    write(link)
    after = Path(os.devnull).stat()
    assert stat.S_ISCHR(after.st_mode) and (before.st_rdev, before.st_ino) == (
        after.st_rdev,
        after.st_ino,
    )


def test_links_that_lead_to_each_other_are_one_line(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).symlink_to(tmp_path / other)
    with pytest.raises(ValueError, match="cannot be written") as told:
        write(tmp_path / "a")
    assert "\n" not in str(told.value)


def test_a_link_to_a_file_stays_a_link(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    write(link)
    assert link.is_symlink() and (tmp_path / "target").read_text() == "new"


@pytest.mark.parametrize("number", ["1", "9" * 30, "x"])
def test_a_folder_that_is_not_ours_is_left_alone(tmp_path, number):
    """Those of killed processes end as tempfile ends its names."""
    kept = tmp_path / f"{_mine()}{number}-mine" / "file"
    kept.parent.mkdir()
    kept.write_text("kept")
    write(tmp_path / "a.txt")
    assert kept.read_text() == "kept"


@settings(max_examples=40, deadline=None)
@given(st.text())
def test_nothing_reaches_a_terminal_that_it_would_obey(text):
    line = escaped(text)
    assert line.isprintable()
    plain = "".join(sign for sign in text if sign.isprintable())
    assert text != plain or line == text


def test_a_line_break_in_a_name_breaks_no_line(capsys):
    say("first\nsecond", "\x1b[31mthird")
    assert capsys.readouterr().out == "first\\nsecond\n\\x1b[31mthird\n"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_in_every_picture(tmp_path, name):
    """No formula, no tag, no color and no identifier."""
    rows = np.random.default_rng(0).normal(size=(30, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # signs that the font lacks
        page = plotting.pairs(rows, rows, names=[name, "other"])[0, 0].figure
        drawn = picture(page, "p", name)
        whole = ElementTree.fromstring(drawn)
        plotting.save(page, tmp_path / "a.svg")
        ElementTree.parse(tmp_path / "a.svg")
    shown = {"".join(part.itertext()) for part in whole.iter() if part.tag.endswith("text")}
    wanted = "".join("\ufffd" if sign in "\x00\x1b" else sign for sign in name).split("\n")[0]
    assert any(wanted in text for text in shown)
    assert not any(part.tag.endswith("script") for part in whole.iter())


@settings(max_examples=8, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_every_name_makes_a_picture_that_a_parser_reads(name):
    page, axes = plotting.figure()
    axes[0, 0].set_xlabel(name, parse_math=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        ElementTree.fromstring(as_svg(page))


def bomb(path, start, megabytes):
    """A gzip of megabytes of one sign in one line."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(start)
        for _ in range(megabytes):
            file.write(b"1" * 2**20)


@pytest.mark.parametrize("start", [b"", b"a,b\n1,", b'a,b\n1,"'])
def test_a_line_without_end_is_refused_in_bounded_memory(tmp_path, start):
    """As a header, as a cell, and in quotes."""
    path = tmp_path / "bomb.csv.gz"
    bomb(path, start, 40)
    tracemalloc.start()
    with pytest.raises(ValueError, match="characters"):
        read_table(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 120 * 2**20


@pytest.mark.slow
def test_of_a_wide_table_only_the_columns_asked_for_are_held(tmp_path):
    path, names = tmp_path / "wide.csv", [f"x{i}" for i in range(500)]
    line = ",".join("0.123456789" for _ in names)
    path.write_text("\n".join([",".join(names), *[line] * 2000]))
    tracemalloc.start()
    table = read_table(path, columns=["x7", "x3"])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert table.columns.tolist() == ["x7", "x3"] and (table == 0.123456789).all(axis=None)
    assert most < path.stat().st_size
