"""Plugins: modules that add parts when they are imported; the parts themselves are in test_seams."""

import sys

import pytest

import cnf
from cnf import plugins
from cnf.cli import main
from cnf.pictures import KINDS

PLUGIN = """
from matplotlib.figure import Figure

from cnf.pictures import KINDS, PlotKind

KINDS.add(PlotKind("columns", "how many columns there are", lambda context: Figure()))
"""


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A model, and a plugin that is forgotten afterwards."""
    cnf.CNF(2, hidden=(8, 8)).save(tmp_path / "m")
    (tmp_path / "plugin.py").write_text(PLUGIN)
    monkeypatch.setenv("CNF_PLUGINS", str(tmp_path / "plugin.py"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop(str(tmp_path / "plugin.py"), None)
    if "columns" in KINDS.names:
        KINDS.remove("columns")


def outcome(capsys, *words):
    code = main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


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
