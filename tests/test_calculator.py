"""The report's form that scores a row answers as the model does."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from browsing import CONTRASTS, look, needs_browser, opened
from markupsafe import Markup
from page_programs import interpreting, model_of, needs_node
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from test_export import prices

import cnf
from cnf.cli import main
from cnf.export import ScoreProgram
from cnf.export.graph import graph_of, operators
from cnf.report import calculator as form
from cnf.report.templates import asset, filled
from cnf.tables import Column, Schema, TableFlow
from cnf.tables.loading import load_table_flow

KEPT = Path(__file__).parent / "models" / "export"


@pytest.fixture(scope="module")
def interpreter():
    with interpreting() as found:
        yield found


@pytest.fixture(scope="module")
def model():
    """A model with ranges, splines and a mixture with heavy tails."""
    return load_table_flow(KEPT / "prices.safetensors")


@torch.no_grad()
def same_scores(interpreter, graph, model, table):
    """Scores and error bounds agree within 1e-4 nats, in rows that the model solves once."""
    found = [part[:, 0] for part in interpreter(graph, table.to_numpy(dtype=float))]
    wanted = model.evaluate(table)
    once = (wanted.nfe == model.flow.solver.nfe).numpy() & (found[2] == 1)
    assert once.sum() >= 20
    for one, other in zip(found[:2], (wanted.log_prob, wanted.error)):
        np.testing.assert_allclose(one[once], other.numpy()[once], atol=1e-4, rtol=0)
    return found


@pytest.mark.slow
@needs_node
def test_the_page_scores_rows_as_the_model_does(interpreter, model):
    table = pd.DataFrame(prices(25, seed=3).numpy(), columns=["price", "share", "height"])
    table.loc[0, "share"], table.loc[1, "height"] = 5.0, np.nan
    cells = table.copy()
    cells.loc[1, "height"] = 1000.0  # the model refuses a missing cell
    found = same_scores(interpreter, graph_of(KEPT / "prices.onnx"), model, cells)
    assert found[0][0] == -np.inf
    log_prob, _, ok = interpreter(graph_of(KEPT / "prices.onnx"), table[1:2].to_numpy())
    assert np.isnan(log_prob).all() and not ok.any()


def wide(rows, seed=0):
    """Twelve columns that depend on each other."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(rows, 12)) @ np.random.default_rng(9).normal(size=(12, 12)) / 3
    mixed[:, 0] += np.tanh(3 * mixed[:, 1])
    return pd.DataFrame(mixed, columns=[f"x{j}" for j in range(12)])


def ranged(rows, seed=0):
    """A positive and a bounded column, and two clusters."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(rows, 3))
    z[:, 2] += np.where(random.random(rows) < 0.4, -3, 3)
    return pd.DataFrame(
        {"price": np.exp(z[:, 0]), "share": 1 / (1 + np.exp(z[:, 0] - z[:, 1])), "c": z[:, 2]}
    )


def counted(rows, seed=0):
    """A typed table: two columns of integers of narrow cells, and a real one."""
    z = np.random.default_rng(seed).normal(size=(rows, 3))
    n, k = (
        np.round(40 * np.exp(0.5 * z[:, 0])),
        np.round(200 + 30 * z[:, 1] + 20 * np.abs(z[:, 0])),
    )
    return pd.DataFrame({"n": n, "k": k, "c": z[:, 2] + np.sin(2 * z[:, 0])})


@needs_node
@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        (ranged, {"price": "positive", "share": "bounded:0:1"}),
        (wide, None),
        (counted, {"n": "integer", "k": "integer"}),
    ],
)
def test_the_page_scores_rows_of_fitted_models(interpreter, make, kinds):
    fitted = cnf.fit_table(make(1_500), kinds=kinds, steps=60)
    graph = form.page_graph(ScoreProgram(fitted))
    same_scores(interpreter, graph, fitted, make(200, seed=5)[:100])


@pytest.mark.slow
def test_the_first_row_of_the_form_has_the_median_score(model):
    table = model.sample(400, generator=torch.Generator().manual_seed(0))
    program, columns = ScoreProgram(model), model.schema.modeled
    row = form.typical_row(program, columns, table)
    scores = model.log_prob(table[::2]).detach().numpy()
    at = np.abs(table[::2].to_numpy() - row).sum(1).argmin()
    assert abs((scores < scores[at]).mean() - 0.5) < 0.03
    outside = table.assign(share=7.0)
    assert form.typical_row(program, columns, outside) == outside.iloc[0].tolist()


def test_a_model_that_cannot_be_exported_has_a_line_in_place_of_the_form():
    schema = Schema((Column("kind<b>", "categorical", levels=("a", "b")),))
    text = form.calculator(TableFlow(schema, None), pd.DataFrame())
    assert "kind&lt;b&gt;" in text and "cnf.Scorer" in text
    assert "<script" not in text and text.count("\n") < 3


def test_an_operator_that_the_page_lacks_is_refused(model, monkeypatch):
    def write(program, path):
        onnx.save(model_of("Erf", [np.float32([1.0])], {}, 1), path)

    monkeypatch.setattr(form, "write_program", write)
    with pytest.raises(cnf.export.ExportError, match=r"cannot compute Erf; .*cnf\.Scorer"):
        form.page_graph(ScoreProgram(model))


# ---- in a browser

HOSTILE = ["</script><b>price", "share\" onfocus='x'", "{{ height }}"]


@pytest.fixture(scope="module")
def page(model, tmp_path_factory):
    """The section on a page with the rules of a report, for columns with hostile names."""
    schema = Schema(tuple(replace(c, name=n) for c, n in zip(model.schema.columns, HOSTILE)))
    named = TableFlow(schema, model.flow)
    table = model.sample(50, generator=torch.Generator().manual_seed(0)).set_axis(HOSTILE, axis=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(form, "page_graph", lambda program: graph_of(KEPT / "prices.onnx"))
        body = form.calculator(named, table)
    pair = SimpleNamespace(fake=[0], real=table)
    sections = [("calculator", "Score a row", body)]
    style = Markup(asset("page.css"))
    path = tmp_path_factory.mktemp("form") / "r.html"
    path.write_text(
        filled("comparison.html", title="t", pair=pair, sections=sections, version="", style=style)
    )
    with opened() as browser:
        look(browser)
        browser.get(path.as_uri())
        yield browser


def typed(page, *cells):
    """What the form answers to cells that are put into its fields."""
    put = "arguments[0].value = arguments[1]"
    for i, cell in enumerate(cells):
        page.execute_script(put, page.find_element(By.ID, f"cell-{i}"), cell)
    page.execute_script("document.forms[0].dispatchEvent(new Event('input'))")
    return [page.find_element(By.ID, name).text for name in ("log-prob", "bound", "ok", "why")]


def number(text):
    return float(text.replace("−", "-").removeprefix("± ").removesuffix(" nats"))


@pytest.mark.slow
@needs_browser
def test_the_form_shows_the_score_of_what_is_typed(page, model):
    assert page.get_log("browser") == []
    for row in prices(2, seed=6):
        log_prob, bound, ok, why = typed(page, *(f"{cell:.5g}" for cell in row))
        typed_row = torch.tensor([[float(f"{cell:.5g}") for cell in row]], dtype=torch.float64)
        wanted = model.flow.evaluate(typed_row)
        assert number(log_prob) == pytest.approx(wanted.log_prob.item(), abs=2e-4)
        assert number(bound) == pytest.approx(wanted.error.item(), rel=0.05)
        assert (ok, why) == ("yes", "")
    log_prob, bound, ok, why = typed(page, "1", "5", "1000")
    assert (log_prob, bound, ok) == ("−∞", "± 0 nats", "yes")
    assert why == f"{HOSTILE[1]}: outside its range, where the density is zero."
    assert page.find_element(By.ID, "cell-1").get_attribute("aria-invalid") == "true"
    log_prob, _, ok, why = typed(page, "1", "2", "")
    assert (log_prob, ok, why) == ("unknown", "no", f"{HOSTILE[2]}: expected a number.")
    page.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    shown = page.find_element(By.ID, "log-prob")
    WebDriverWait(page, 10).until(lambda b: shown.text.startswith("−") and "∞" not in shown.text)
    _, _, ok, why = typed(page, "1e9", "2", "1000")
    assert ok == "no" and "The error bound exceeds 0.001 nats" in why
    assert page.get_log("browser") == []
    asked = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = [
        e["params"]["request"]["url"] for e in asked if e["method"] == "Network.requestWillBeSent"
    ]
    assert urls and all(url.startswith(("file:", "data:")) for url in urls)


@needs_browser
def test_the_form_is_for_everyone(page):
    labels = page.execute_script(
        "return [...document.querySelectorAll('input')].map(e => e.labels[0].textContent)"
    )
    assert labels == HOSTILE
    hint = "e => document.getElementById(e.getAttribute('aria-describedby')).textContent"
    hints = page.execute_script(f"return [...document.querySelectorAll('input')].map({hint})")
    assert hints == ["positive", "bounded, between 0 and 5", "real"]
    field = page.find_element(By.ID, "cell-0")
    before = page.find_element(By.ID, "log-prob").text
    field.send_keys("1")
    assert page.find_element(By.ID, "log-prob").text != before
    field.send_keys(Keys.ENTER)  # nothing is sent
    assert "?" not in page.current_url
    for scheme in ("light", "dark"):
        look(page, scheme=scheme)
        assert page.execute_script(CONTRASTS)[0][0] >= 4.5
        look(page, width=360, height=740, scheme=scheme)
        assert page.execute_script("return document.documentElement.scrollWidth") == 360


@pytest.mark.slow
def test_the_command_adds_the_form(tmp_path):
    ranged(300).to_csv(tmp_path / "t.csv", index=False)
    model, table, output = (str(tmp_path / name) for name in ("m.safetensors", "t.csv", "r.html"))
    assert main(["fit", table, "-o", model, "--steps", "30", "--width", "8"]) == 0
    assert main(["report", model, table, "-o", output, "--calculator"]) == 0
    text = Path(output).read_text()
    program = json.loads(re.search(r'id="program">(.*)</script>', text)[1])
    assert len(text) < 6e6 and "Scan" in operators(program["graph"])
    assert [column["name"] for column in program["columns"]] == ["price", "share", "c"]
