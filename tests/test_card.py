"""The cards that notebooks show: well-formed, escaped, and true."""

from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import cnf
from cnf.card import card

HOSTILE = '<script>alert("x")</script> & Co'


class Text(HTMLParser):
    """The text of a page, and its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words, self.tags = [], set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, data):
        self.words.append(data)


def test_every_text_is_escaped():
    found = Text(card(HOSTILE, {HOSTILE: HOSTILE}, {HOSTILE: HOSTILE}))
    assert "script" not in found.tags
    assert "".join(found.words).count(HOSTILE) == 5


@pytest.mark.parametrize("curve", [[3.0, 2.0, 2.5], [1.0, 1.0], [1.0], []])
def test_the_curve_stays_within_its_picture(curve):
    tree = ElementTree.fromstring(card("model", {}, curve=curve))
    drawn = tree.find("svg/polyline")
    assert (drawn is None) == (len(curve) < 2)
    if drawn is not None:
        points = np.array([point.split(",") for point in drawn.get("points").split()], float)
        size = [float(tree.find("svg").get(side)) for side in ("width", "height")]
        assert len(points) == len(curve) and (points >= 0).all() and (points <= size).all()
        if len(set(curve)) > 1:
            assert np.argmin(points[:, 1]) == np.argmax(curve)


def test_a_flow_names_its_parts():
    flow = cnf.CNF(3, hidden=(8, 8), context_dim=2, base=cnf.StudentTBase(3))
    words = Text(flow._repr_html_()).words
    assert "CNF of 3 columns" in words and "context columns: 2" in words
    assert "base: StudentTBase" in words
    weights = sum(p.numel() for p in flow.field.parameters())
    assert any(f"{weights:,} weights" in word for word in words)
    adaptive = cnf.CNF(2, hidden=(8, 8), solver=cnf.Torchdiffeq())
    assert any("adaptive" in word for word in Text(adaptive._repr_html_()).words)


def test_models_and_questions_print_on_one_line():
    """Without numbers of their tensors; a field prints as torch prints modules."""
    flow = cnf.CNF(3, hidden=(8, 8), context_dim=2)
    weights = sum(p.numel() for p in flow.field.parameters())
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["height", "u"])
    plain = cnf.TableFlow(cnf.Schema.infer(table), cnf.CNF(2, hidden=(4, 4)))
    found = [
        (flow, ["CNF of 3 columns", "context columns: 2", f"GatedField, {weights:,} weights"]),
        (flow(np.zeros((4, 2))), ["FlowDistribution of CNF of 3 columns", "batch shape (4,)"]),
        (flow.bind(np.full((99, 2), 7.25)), ["BoundFlow", "CNF of 3 columns"]),
        (cnf.CNF(3).conditional({1: 0.5}), ["columns [0, 2] given [1] (exact)"]),
        (plain, ["TableFlow", "columns: height, u", "rows: not fitted", "weights: "]),
        (plain.conditional({"u": 2.0}), ["TableDensity of height given u (exact)"]),
    ]
    for model, told in found:
        line = repr(model)
        assert all(words in line for words in told), line
        assert "\n" not in line and len(line) < 400 and "tensor" not in line and "7.25" not in line
    assert repr(flow.field).startswith("GatedField(\n")


def test_a_table_shows_its_fit_and_its_columns(tmp_path):
    random = np.random.default_rng(0)
    frame = pd.DataFrame({HOSTILE: random.normal(size=100), "g": list("ab") * 50})
    words = Text(cnf.TableFlow(cnf.Schema.infer(frame), hidden=(8, 8))._repr_html_()).words
    assert "rows: not fitted" in words
    model = cnf.fit_table(frame, steps=40, hidden=(8, 8))
    found = Text(model._repr_html_())
    assert {"svg", "table"} <= found.tags and "script" not in found.tags
    for column in model.schema.columns:
        assert column.name in "".join(found.words) and column.describe() in "".join(found.words)
    assert any(f"{model.history.valid_nll:.3f}" in word for word in found.words)
    model.save(tmp_path / "m.safetensors")
    loaded = cnf.load(tmp_path / "m.safetensors")
    assert loaded._repr_html_() == model._repr_html_() and repr(loaded) == repr(model)
    assert f"rows: 90; held-out NLL: {model.history.valid_nll:.3f} ±" in repr(model)
