"""The report's form that scores a row: its operators beside onnxruntime, its answers beside the model."""

import base64
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from browsing import CONTRASTS, look, needs_browser, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from markupsafe import Markup
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from test_export import prices

import cnf
from cnf.cli import main
from cnf.export import OPSET, ScoreProgram
from cnf.export.graph import graph_of, operators, packed
from cnf.report import calculator as form
from cnf.report.templates import asset, filled
from cnf.tables import Column, Schema, TableFlow
from cnf.tables.loading import load_table_flow

KEPT = Path(__file__).parent / "models" / "export"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="no node here: apt-get install nodejs")
# Answers a line of a graph and its rows, if it takes any, by a line of the outputs of each row.
LINES = """
const onnx = new Function(process.argv[1] + "; return onnx")();
const floats = (text) => new Float64Array(Uint8Array.from(Buffer.from(text, "base64")).buffer);
const text = (data) => Buffer.from(data.slice().buffer).toString("base64");
const told = ({ data, shape }) => [data.constructor.name, shape, text(data)];
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { graph, rows, width } = JSON.parse(line), run = onnx(graph), data = floats(rows);
  const row = (i) => ({ data: data.slice(i * width, (i + 1) * width), shape: [1, width] });
  const count = width ? data.length / width : 1;
  const found = Array.from({ length: count }, (_, i) => run(row(i)).map(told));
  console.log(JSON.stringify(found));
});
"""
TYPES = {"Float32Array": "<f4", "Float64Array": "<f8", "Int32Array": "<i4", "Uint8Array": "|u1"}
NO_ROWS = np.zeros((0, 0))


class Interpreter:
    """A process of node that runs onnx.js."""

    def __init__(self):
        command = [NODE, "-e", LINES, asset("onnx.js")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, graph, rows=NO_ROWS):
        """What the graph answers, each output (rows, ...); once for a graph without inputs."""
        text = base64.b64encode(rows.astype("<f8").tobytes()).decode()
        asked = json.dumps({"graph": graph, "rows": text, "width": rows.shape[1]})
        print(asked, file=self.process.stdin, flush=True)
        answers = json.loads(self.process.stdout.readline())
        return [np.stack([read(*output) for output in outputs]) for outputs in zip(*answers)]


def read(kind, shape, text):
    return np.frombuffer(base64.b64decode(text), TYPES[kind]).reshape(shape)


@pytest.fixture(scope="module")
def interpreter():
    found = Interpreter()
    yield found
    found.process.stdin.close()
    assert found.process.wait(10) == 0
    found.process.stdout.close()


# ---- operators


def numbers(low=-9.0, high=9.0, special=False):
    """Elements of arrays; special ones are infinite, no numbers, or halves."""
    elements = st.floats(low, high, width=16)
    return (
        elements | st.sampled_from([np.inf, -np.inf, np.nan, 0.5, -2.5]) if special else elements
    )


FLOATS = st.sampled_from([np.float32, np.float64])
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, max_side=3)


@st.composite
def together(draw, count, elements=None, dtypes=FLOATS):
    """Arrays that broadcast."""
    shapes = draw(hnp.mutually_broadcastable_shapes(num_shapes=count, max_dims=3, max_side=3))
    dtype, found = draw(dtypes), numbers() if elements is None else elements
    return [draw(hnp.arrays(dtype, shape, elements=found)) for shape in shapes.input_shapes], {}


@st.composite
def with_axis(draw):
    """An array of one to three dimensions, and one of its axes."""
    shape = draw(hnp.array_shapes(max_dims=3, max_side=3))
    x = draw(hnp.arrays(draw(FLOATS), shape, elements=numbers()))
    return x, draw(st.integers(-x.ndim, x.ndim - 1))


@st.composite
def reductions(draw):
    x, axis = draw(with_axis())
    axes = draw(st.sampled_from([[], [[axis]], [list(range(x.ndim))]]))
    return [x, *(np.array(a) for a in axes)], {"keepdims": draw(st.integers(0, 1))}


@st.composite
def indexed(draw):
    x, axis = draw(with_axis())
    end = x.shape[axis]
    shape = draw(SHAPES)
    return [x, draw(hnp.arrays(np.int64, shape, elements=st.integers(-end, end - 1)))], {
        "axis": axis
    }


@st.composite
def indexed_elements(draw):
    (x, _), axis = draw(with_axis()), 0
    (axis,) = [draw(st.integers(0, x.ndim - 1))]
    shape = [draw(st.integers(1, 3)) if k == axis else n for k, n in enumerate(x.shape)]
    index = draw(hnp.arrays(np.int64, tuple(shape), elements=st.integers(0, x.shape[axis] - 1)))
    return [x, index], {"axis": axis}


@st.composite
def slices(draw):
    x, axis = draw(with_axis())
    far = st.integers(-4, 4) | st.sampled_from([2**63 - 1, -(2**63) + 1])
    start, end = draw(st.integers(-4, 4)), draw(far)
    step = draw(st.sampled_from([1, 2, -1, -2]))
    return [x, *(np.array([part]) for part in (start, end, axis, step))], {}


@st.composite
def parts(draw):
    x, axis = draw(with_axis())
    first = draw(st.integers(0, x.shape[axis]))
    return [x, np.array([first, x.shape[axis] - first])], {"axis": axis}


@st.composite
def joined(draw):
    x, axis = draw(with_axis())
    return [x, x[tuple(slice(0, n) for n in x.shape)] + 1, x], {"axis": axis}


@st.composite
def matrices(draw, batches=True):
    rows, inner, columns = (draw(st.integers(1, 4)) for _ in range(3))
    batch = draw(st.sampled_from([((), ()), ((2,), ()), ((2, 1), (3,))])) if batches else ((), ())
    dtype = draw(FLOATS)
    left, right = (*batch[0], rows, inner), (*batch[1], inner, columns)
    if batches and draw(st.booleans()):
        left, right = draw(st.sampled_from([((inner,), right), (left, (inner,))]))
    return [draw(hnp.arrays(dtype, shape, elements=numbers())) for shape in (left, right)], {}


@st.composite
def affine(draw):
    (a, b), _ = draw(matrices(batches=False))
    turns = {"transA": draw(st.integers(0, 1)), "transB": draw(st.integers(0, 1))}
    c = draw(st.sampled_from([(1,), (b.shape[1],), (a.shape[0], 1)]))
    c = draw(hnp.arrays(a.dtype, c, elements=numbers()))
    given = [a.T if turns["transA"] else a, b.T if turns["transB"] else b, c]
    return given, turns | {"alpha": 0.5, "beta": draw(st.sampled_from([1.0, 2.0]))}


@st.composite
def reshapes(draw):
    x, _ = draw(with_axis())
    return [
        x,
        np.array(draw(st.sampled_from([[-1], [0, -1], [1, -1, 1], list(x.shape[::-1])]))),
    ], {}


@st.composite
def single(draw):
    """An array with an axis of length 1."""
    x, axis = draw(with_axis())
    place = axis % x.ndim
    return [np.expand_dims(x, place), np.array([place])], {}


@st.composite
def sums_along(draw):
    x, axis = draw(with_axis())
    return [x, np.array(axis)], {
        name: draw(st.integers(0, 1)) for name in ("exclusive", "reverse")
    }


@st.composite
def transposes(draw):
    x, _ = draw(with_axis())
    return [x], draw(
        st.sampled_from(
            [{}, {"perm": list(range(x.ndim))[::-1]}, {"perm": [*range(1, x.ndim), 0]}]
        )
    )


def first_of(strategy, **attributes):
    return strategy.map(lambda found: (found[0][:1], attributes))


POSITIVE, SPECIAL, WHOLE = numbers(0.0625, 9.0), numbers(special=True), st.integers(-3, 3)
BOOLS = together(2, st.booleans(), st.just(np.bool_))
ONE = together(1)
ANY = together(1, SPECIAL)
LIMITS = together(1).map(
    lambda found: (
        [*found[0], np.array(-1, found[0][0].dtype), np.array(2, found[0][0].dtype)],
        {},
    )
)
CHOICE = st.tuples(together(3, SPECIAL), st.booleans()).map(
    lambda both: ([both[0][0][0] > 0, *both[0][0][1:]], {})
)
LENGTHS = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(np.array)
CASES = {
    **dict.fromkeys(["Abs", "Cos", "Exp", "Identity", "Neg", "Sigmoid", "Sign", "Sin"], ONE),
    **dict.fromkeys(["Log", "Reciprocal", "Sqrt"], together(1, POSITIVE)),
    **dict.fromkeys(["IsInf", "IsNaN"], ANY),
    **dict.fromkeys(["Add", "Mul", "Sub", "Max", "Min"], together(2)),
    **dict.fromkeys(["Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"], together(2, SPECIAL)),
    **dict.fromkeys(["And", "Or"], BOOLS),
    **dict.fromkeys(["ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMin", "ReduceSum"], reductions()),
    "Cast": st.tuples(together(1, WHOLE), st.sampled_from([1, 7, 9, 11])).map(
        lambda both: (both[0][0], {"to": both[1]})
    ),
    "Clip": LIMITS,
    "Concat": joined(),
    "ConstantOfShape": LENGTHS.map(lambda shape: ([shape], {})),
    "CumSum": sums_along(),
    "Div": together(2, POSITIVE) | together(2, st.integers(1, 9), st.just(np.int64)),
    "Expand": st.tuples(ONE, LENGTHS).map(lambda both: ([both[0][0][0].ravel()[:1], both[1]], {})),
    "Gather": indexed(),
    "GatherElements": indexed_elements(),
    "Gemm": affine(),
    "MatMul": matrices(),
    "Not": first_of(BOOLS),
    "Pow": together(2, POSITIVE),
    "Reshape": reshapes(),
    "Round": together(1, numbers() | st.sampled_from([0.5, 1.5, 2.5, -0.5, -1.5, -2.5])),
    "Shape": first_of(together(2)) | with_axis().map(lambda found: ([found[0]], {"start": 0, "end": 1})),
    "Slice": slices(),
    "Split": parts(),
    "Squeeze": single(),
    "Transpose": transposes(),
    "Unsqueeze": single().map(lambda found: ([found[0][0], found[0][1] + 1], {})),
    "Where": CHOICE,
}  # fmt: skip


def model_of(operator, inputs, attributes, outputs):
    """A file of one node, whose inputs are constants."""
    names = [f"x{i}" for i in range(len(inputs))]
    constants = [onnx.numpy_helper.from_array(np.asarray(x), n) for x, n in zip(inputs, names)]
    found = [f"y{i}" for i in range(outputs)]
    node = onnx.helper.make_node(operator, names, found, **attributes)
    told = [onnx.helper.make_empty_tensor_value_info(name) for name in found]
    return saved([node], [], told, constants)


def saved(nodes, inputs, outputs, constants):
    graph = onnx.helper.make_graph(nodes, "one", inputs, outputs, constants)
    opset = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)


def both(interpreter, model, path):
    """What onnxruntime and the page answer."""
    onnx.save(model, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    wanted = onnxruntime.InferenceSession(path, options).run(None, {})
    found = [part[0] for part in interpreter(graph_of(path))]
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted):
        assert one.shape == other.shape
        single = other.dtype == np.float32
        assert single == (one.dtype == np.float32)
        limits = {"rtol": 2e-6, "atol": 2e-6} if single else {"rtol": 1e-12, "atol": 1e-14}
        np.testing.assert_allclose(one.astype(float), other.astype(float), **limits)


@needs_node
@pytest.mark.parametrize("operator", sorted(CASES))
def test_an_operator_answers_as_onnxruntime_does(interpreter, operator, tmp_path):
    @settings(max_examples=8, deadline=None, database=None, derandomize=True)
    @given(CASES[operator])
    def check(case):
        inputs, attributes = case
        model = model_of(operator, inputs, attributes, 2 if operator == "Split" else 1)
        both(interpreter, model, tmp_path / "one.onnx")

    check()


def test_every_operator_but_the_loop_is_compared():
    _, table = asset("onnx.js").split("const OPERATORS = {")
    assert {*re.findall(r"^    (\w+): ", table, re.M)} == {*CASES, "Scan"}


@needs_node
def test_a_loop_carries_states_and_knows_the_values_around_it(interpreter, tmp_path):
    """Two states and a scanned input; the body reads a constant of the graph around it."""
    helper, kind = onnx.helper, onnx.TensorProto.DOUBLE
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Mul", ["a", "k"], ["scaled"]),
        helper.make_node("Add", ["scaled", "s"], ["a_next"]),
        helper.make_node("Sub", ["b", "a_next"], ["b_next"]),
        helper.make_node("Identity", ["b_next"], ["told"]),
    ]
    ins = [value(name, kind, [2]) for name in ("a", "b", "s")]
    outs = [value(name, kind, [2]) for name in ("a_next", "b_next", "told")]
    body = helper.make_graph(nodes, "body", ins, outs)
    loop = helper.make_node(
        "Scan", ["a0", "b0", "along"], ["a1", "b1", "all"], body=body, num_scan_inputs=1
    )
    outputs = [helper.make_empty_tensor_value_info(name) for name in ("a1", "b1", "all")]
    random = np.random.default_rng(0)
    arrays = {"a0": random.normal(size=2), "b0": random.normal(size=2), "k": np.array([0.5])}
    arrays["along"] = random.normal(size=(5, 2))
    constants = [onnx.numpy_helper.from_array(x, name) for name, x in arrays.items()]
    both(interpreter, saved([loop], [], outputs, constants), tmp_path / "loop.onnx")


def test_the_ends_of_an_axis_fit_into_32_bits():
    kind, shape, text = packed(np.array([2**63 - 1, -(2**63), 5]), 7)
    assert (kind, shape) == (7, (3,))
    assert np.frombuffer(base64.b64decode(text), "<i4").tolist() == [2**31 - 1, -(2**31), 5]


# ---- whole models


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
    assert number(page.find_element(By.ID, "log-prob").text) < 0
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
