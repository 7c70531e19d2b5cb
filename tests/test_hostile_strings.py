"""Two thousand hostile strings as names, levels and titles, through every output, and read back by
a parser. `make test` takes a few of them, `make slow` all."""

import json
import random
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

import cnf
from cnf import plotting
from cnf.card import card
from cnf.cli import main
from cnf.plotting.style import STYLE
from cnf.report import write_report
from cnf.report.figures import picture
from cnf.rows import Rows
from cnf.tables import Schema, read_typed_table, write_table

PARTS = (
    *("$", "$$", "\\frac{1}{", "^{", "_", "\\", "%s", "{0}", "${x}", "{{x}}", "#fff", "url(#a)"),
    *(
        "<script>alert(1)</script>",
        "<b>",
        "</td>",
        "</script>",
        "<!--",
        "-->",
        "]]>",
        "&amp;",
        "&#0;",
    ),
    *(
        '"',
        "'",
        "`",
        'x" onload="y',
        "javascript:",
        "=1+1",
        "@SUM(A1)",
        "+cmd|' /C calc'!A0",
        "-1",
    ),
    *(
        "\x1b[2J",
        "\x1b]0;t\x07",
        "\x00",
        "\x08",
        "\r",
        "\n",
        "\t",
        "\x7f",
        "\x85",
        "\u2028",
        "\ufeff",
    ),
    *(
        "\u202e",
        "\u2066",
        "\u200b",
        "\u0301",
        "é",
        "日本",
        "👩‍🚀",
        "\U000e0041",
        "a" * 90,
        " ",
        ",",
        ";",
    ),
)


def strings(count: int, seed: int) -> list[str]:
    """Different ones, of one to four parts each, none of which is blank."""
    chance, found = random.Random(seed), {}
    while len(found) < count:
        text = "".join(chance.choices(PARTS, k=chance.randint(1, 4))) + f"·{len(found)}"
        found[text] = None
    return list(found)


CATEGORIES = {"a": "categorical", "b": "categorical"}


def halves(hostile: list[str]) -> pd.DataFrame:
    """A table whose two categories have half of them each as levels, which a column may have."""
    half = len(hostile) // 2
    cells = {"a": hostile[:half] * 2, "b": hostile[half:] * 2}
    return pd.DataFrame({**cells, "x": np.arange(2.0 * half) ** 1.5})


FEW = pytest.param(60, id="few")
ALL = pytest.param(2_000, id="all", marks=pytest.mark.slow)
each_count = pytest.mark.parametrize("count", [FEW, ALL])


class Page(HTMLParser):
    """Tags, attributes and text of a page; what is inside a script is neither."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.words = [], set(), []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.words.append(data)


def visible(text: str) -> str:
    """The text without what no page shows, or shows as it likes."""
    return "".join(sign for sign in text if sign.isprintable() and not sign.isspace())


@each_count
def test_a_card_holds_them_as_text(count):
    hostile = strings(count, seed=1)
    page = Page(
        card(hostile[0], {text: text for text in hostile}, {text: text for text in hostile})
    )
    text = visible("".join(page.words))
    assert not {"script", "b"} & set(page.tags) and page.tags.count("tr") == count
    assert all(visible(each) in text for each in hostile)
    assert page.attributes <= {"class", "style"}


@each_count
def test_files_hand_them_back(count, tmp_path):
    """Tables in files, and the schema of a model."""
    hostile = strings(count, seed=2)
    # Text files cannot say which of several line ends a cell had, and none holds a zero byte.
    sound = [text for text in hostile if not set(text) & set("\r\n\x00\x85\u2028\ufeff")]
    table = pd.DataFrame({"level": sound, "x": np.arange(len(sound)) * 0.5})
    for name in ("t.csv", "t.tsv", "t.parquet"):
        write_table(table, tmp_path / name)
        read = read_typed_table(tmp_path / name, texts=["level"])
        assert read["level"].tolist() == sound and read["x"].tolist() == table["x"].tolist()
    schema = Schema.infer(halves(hostile), kinds=CATEGORIES)
    assert Schema.from_json(json.loads(json.dumps(schema.as_json()))) == schema
    model = cnf.TableFlow(schema, hidden=(4, 4))
    model.save(tmp_path / "m.safetensors")
    assert cnf.load(tmp_path / "m.safetensors").schema == schema


@each_count
def test_a_terminal_shows_them_and_obeys_none(count, tmp_path, capsys):
    """As levels and as names of columns: `cnf info`, in words and as JSON."""
    hostile = strings(count, seed=3)
    table, names = halves(hostile), hostile[:20]
    random = np.random.default_rng(0)
    numbers = pd.DataFrame({name: random.normal(size=len(table)) for name in names})
    schema = Schema.infer(numbers.join(table[["a", "b"]]), kinds=CATEGORIES)
    path = tmp_path / "m.safetensors"
    cnf.TableFlow(schema, hidden=(4, 4)).save(path)
    assert main(["info", str(path)]) == 0
    lines = capsys.readouterr().out
    assert all(line.isprintable() for line in lines.split("\n"))
    assert main(["info", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [column["name"] for column in told["schema"]][: len(names)] == names


@pytest.mark.parametrize("count", [pytest.param(10, id="few"), ALL])
@pytest.mark.filterwarnings("ignore:Glyph", "ignore:constrained_layout")  # signs that fonts lack
def test_pictures_hold_them_as_text(count):
    """Ten in each: as title, labels of axes and names in the legend."""
    hostile = strings(count, seed=4)
    for start in range(0, count, 10):
        title, below, beside, *names = hostile[start : start + 10]
        with matplotlib.rc_context(STYLE):
            page, axes = plotting.figure()
            axes[0, 0].set(title=title, xlabel=below, ylabel=beside)
            for name in names:
                axes[0, 0].plot([0, 1], label=f"·{name}")  # none that begins with "_" stands there
            axes[0, 0].legend()
            tree = ElementTree.fromstring(picture(page, "p", title))
        words = visible("".join("".join(part.itertext()) for part in tree.iter()))
        assert not any(part.tag.endswith("}script") for part in tree.iter())
        assert not any(name.startswith("on") for part in tree.iter() for name in part.attrib)
        assert all(f"·{text.rsplit('·')[-1]}" in words for text in hostile[start : start + 10])


@pytest.mark.parametrize(
    "count", [pytest.param(1, id="few"), pytest.param(40, id="all", marks=pytest.mark.slow)]
)
@pytest.mark.filterwarnings("ignore:Glyph")  # signs that the font lacks
def test_a_report_holds_them_as_text(count, tmp_path):
    """Fifty in each: as title, source and names."""
    flow, rows = cnf.CNF(3, hidden=(4, 4)), Rows(torch.randn(60, 3))
    plain = tmp_path / "plain.html"
    write_report(flow, rows, plain)
    usual = Page(plain.read_text())
    hostile = strings(50 * count, seed=5)
    for start in range(0, len(hostile), 50):
        title, source, *others = hostile[start : start + 50]
        names = ["".join(others[k::3]) for k in range(3)]
        write_report(flow, rows, tmp_path / "p.html", names=names, title=title, source=source)
        page = Page((tmp_path / "p.html").read_text())
        assert page.tags.count("script") == usual.tags.count("script")
        assert set(page.tags) <= set(usual.tags) and page.attributes <= usual.attributes
        assert visible(title) in visible("".join(page.words))
