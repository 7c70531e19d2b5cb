"""Parts from one file outside the package: a plot kind, a report section, a check."""

import json
import sys

import pandas as pd
import pytest
from problems import normal

import cnf
from cnf import plugins
from cnf.cli import main
from cnf.diagnostics import CHECKS
from cnf.pictures import KINDS
from cnf.report import SECTIONS

PLUGIN = """
from matplotlib.figure import Figure

from cnf.diagnostics import CHECKS, Check, CheckResult
from cnf.pictures import KINDS, PlotKind
from cnf.report import SECTIONS, Section, markup


def draw(context):
    page = Figure()
    page.text(0.5, 0.5, f"{context.flow.dim} columns")
    return page


def narrow(case):
    yield CheckResult.at_most("width", "the table is narrow", case.flow.dim, 1)


def render(data):
    return markup("<p>{{ names }}</p>", names=" & ".join(data.names))


KINDS.add(PlotKind("columns", "how many columns there are", draw))
CHECKS.add(Check("width", "cost", narrow))
SECTIONS.add(Section("names", "The names", render, order=15))
"""


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A model, a table, and a plugin, which is forgotten afterwards."""
    flow = cnf.CNF(2, hidden=(8, 8))
    flow.metadata = {"columns": ["a", "b"], "context": []}
    flow.save(tmp_path / "m")
    table = pd.DataFrame(normal(60, 2).numpy(), columns=["a", "b"])
    table.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "plugin.py").write_text(PLUGIN)
    monkeypatch.setenv("CNF_PLUGINS", str(tmp_path / "plugin.py"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop(str(tmp_path / "plugin.py"), None)
    for registry, name in ((KINDS, "columns"), (CHECKS, "width"), (SECTIONS, "names")):
        if name in registry.names:
            registry.remove(name)


def outcome(capsys, *words):
    code = main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_plot_kind_is_in_the_help_and_drawn(room, capsys):
    assert "how many columns there are" in outcome(capsys, "plot", "--help")[1]
    assert main(["plot", "m", "columns", "-o", "p.svg"]) == 0
    assert "<!-- 2 columns -->" in (room / "p.svg").read_text()
    code, _, err = outcome(capsys, "plot", "m", "columns", "-o", "p.gif")
    assert code == 2 and "columns has no animation" in err


def test_a_check_is_made_and_decides(room, capsys):
    code, out, _ = outcome(capsys, "check", "m", "t.csv", "--json")
    (found,) = [claim for claim in json.loads(out)["claims"] if claim["name"] == "width"]
    assert (code, found["passed"], found["kind"]) == (1, False, "cost")


def test_a_section_stands_in_its_place_and_is_escaped(room):
    assert main(["report", "m", "t.csv", "-o", "r.html"]) == 0
    text = (room / "r.html").read_text()
    assert "<p>a &amp; b</p>" in text
    places = [text.index(f'<h2 id="{name}">') for name in ("about", "names", "held-out")]
    assert places == sorted(places)


def test_a_plugin_is_loaded_once(room):
    plugins.load()
    plugins.load()
    assert KINDS.names.count("columns") == 1


def test_a_module_by_name_is_a_plugin_too(room, monkeypatch):
    (room / "outside_part.py").write_text("LOADED = True\n")
    monkeypatch.syspath_prepend(room)
    monkeypatch.setenv("CNF_PLUGINS", "outside_part, plugin.py")
    plugins.load()
    assert sys.modules.pop("outside_part").LOADED and "columns" in KINDS.names


def test_an_installed_module_is_found_by_its_entry_point(room, monkeypatch):
    (room / "installed_part.py").write_text("LOADED = True\n")
    folder = room / "installed_part-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: installed-part\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[cnf.plugins]\npart = installed_part\n")
    monkeypatch.syspath_prepend(room)
    plugins.load()
    assert sys.modules.pop("installed_part").LOADED


@pytest.mark.parametrize(
    ("plugin", "told"),
    [
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("import nothing_of_this_name", "nothing_of_this_name"),
        (
            "from cnf.pictures import KINDS\nKINDS.add(KINDS['density'])",
            "there is a kind of picture 'density' already",
        ),
        (None, "no file"),
    ],
)
def test_a_broken_plugin_is_one_line(room, capsys, monkeypatch, plugin, told):
    if plugin is not None:
        (room / "broken.py").write_text(plugin)
    monkeypatch.setenv("CNF_PLUGINS", "broken.py")
    code, out, err = outcome(capsys, "info", "m")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "plugin 'broken.py' cannot be imported" in err and told in err
