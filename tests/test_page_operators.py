"""The operators of the report's form beside onnxruntime."""

import base64
import re

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from page_programs import interpreting, model_of, needs_node, saved

from cnf.export.graph import graph_of, packed
from cnf.report.templates import asset


@pytest.fixture(scope="module")
def interpreter():
    with interpreting() as found:
        yield found


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
