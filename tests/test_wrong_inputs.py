"""Wrong inputs at every entry: an answer that is right, or one line of our own that says what was
expected and what was found."""

import traceback
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import cnf

PACKAGE = str(Path(cnf.__file__).parent)
X = np.random.default_rng(0).normal(size=(12, 2))


def flow(**options) -> cnf.CNF:
    torch.manual_seed(0)
    return cnf.CNF(2, hidden=(4, 4), solver=cnf.Grid.uniform(2), **options)


FLOW, GIVEN = flow(), flow(context_dim=1)
MARGINAL = FLOW.marginal([0, 1])


def refusal(call) -> str:
    """The one line with which a call is refused by this package."""
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    raised = traceback.extract_tb(caught.value.__traceback__)[-1].filename
    message = str(caught.value)
    assert raised.startswith(PACKAGE), f"{raised} raised {message!r}"
    assert "\n" not in message
    return message


NO_NUMBERS = {
    "path": ("table.csv", "'table.csv'"),
    "Path": (Path("table.csv"), "PosixPath"),
    "none": (None, "NoneType"),
    "strings": (["a", "b"], "list"),
    "array of text": (X.astype(str), "ndarray of <U"),
    "complex array": (X + 0j, "ndarray of complex128"),
    "complex tensor": (torch.tensor(X + 0j), "Tensor of torch.complex128"),
    "dates": (X.astype("datetime64[s]"), "ndarray of datetime64"),
    "frame with text": (pd.DataFrame({"a": [1.0], "b": ["x"]}), "DataFrame"),
    "missing cell": (np.array([[None, 1.0]]), "ndarray of object"),
    "mapping": ({"a": 1}, "dict"),
    "ragged": ([[1.0], [1.0, 2.0]], "list"),
    "generator": ((i for i in range(2)), "generator"),
}
ROWS = {
    "log_prob": FLOW.log_prob,
    "evaluate": FLOW.evaluate,
    "trajectory": lambda x: FLOW.trajectory(x, [0.0, 1.0]),
    "trajectory_and_log_prob": lambda x: FLOW.trajectory_and_log_prob(x, [0.0, 1.0]),
    "transport": FLOW.transport,
    "log_density_ratio": FLOW.log_density_ratio,
    "velocity": lambda x: FLOW.velocity(0.5, x),
    "to_model_coordinates": FLOW.to_model_coordinates,
    "calibrate": lambda x: flow().calibrate(x),
    "distribution": FLOW().log_prob,
    "marginal": MARGINAL.log_prob,
    "check": lambda x: cnf.diagnostics.check(FLOW, x),
    "fit": lambda x: cnf.fit(flow(), x, steps=1),
}
CONTEXTS = {
    "context": lambda c: GIVEN.log_prob(X, c),
    "context of a distribution": GIVEN,
    "context of a sample": lambda c: GIVEN.sample((), c),
    "context of a path": lambda c: GIVEN.trajectory(X, [0.0, 1.0], c),
    "context of rows": lambda c: GIVEN.to_model_coordinates(X, c),
}


@pytest.mark.parametrize("name", NO_NUMBERS)
@pytest.mark.parametrize("entry", ROWS | CONTEXTS)
def test_what_is_no_array_of_numbers_is_refused(entry, name):
    value, shown = NO_NUMBERS[name]
    if (entry, name) == ("context of rows", "none"):
        return  # rows alone have model coordinates
    message = refusal(lambda: (ROWS | CONTEXTS)[entry](value))
    argument = "context" if entry in CONTEXTS else "x"
    if value is None and entry in CONTEXTS:
        assert message.startswith("context: expected 1 columns") and "got none" in message
    else:
        assert message.startswith(f"{argument}: expected") and f"got {shown}" in message


WIDTHS = {"one axis": X[:, 0], "scalar": 3.0, "narrow": X[:, :1], "wide": np.zeros((12, 3))}


@pytest.mark.parametrize("name", WIDTHS)
@pytest.mark.parametrize("entry", ROWS)
def test_rows_of_another_width_are_refused(entry, name):
    message = refusal(lambda: ROWS[entry](WIDTHS[name]))
    assert str(np.shape(WIDTHS[name])) in message or "2 columns" in message or "dim=2" in message


@pytest.mark.parametrize("name", ["one axis", "scalar", "wide"])
@pytest.mark.parametrize("entry", CONTEXTS)
def test_contexts_of_another_width_are_refused(entry, name):
    message = refusal(lambda: CONTEXTS[entry](WIDTHS[name]))
    assert message.startswith("context: expected 1 columns")
    assert f"got shape {np.shape(WIDTHS[name])}" in message


def test_a_column_that_lacks_its_second_axis_is_told_how_to_get_it():
    line = cnf.CNF(1, hidden=(4, 4))
    assert "x[:, None] makes a column of it" in refusal(lambda: line.log_prob(X[:, 0]))
    assert "context[:, None] makes a column of it" in refusal(lambda: GIVEN.log_prob(X, X[:, 0]))


def test_a_context_that_is_not_wanted_is_refused():
    for call in (lambda: FLOW.log_prob(X, X[:, :1]), lambda: FLOW(X), lambda: FLOW.sample(2, X)):
        assert refusal(call).startswith("context: expected none, for a flow without context")


def test_rows_and_contexts_of_different_numbers_are_refused():
    message = refusal(lambda: GIVEN.log_prob(X, X[:5, :1]))
    assert "got (5,) for (12,) rows of x" in message


@pytest.mark.parametrize("entry", [e for e in ROWS if e not in ("check", "fit", "calibrate")])
def test_no_rows_have_no_answers(entry):
    found = ROWS[entry](X[:0])
    part = found[0] if isinstance(found, tuple) else getattr(found, "log_prob", found)
    assert part.numel() == 0


def test_lists_and_frames_of_numbers_are_rows():
    frame = pd.DataFrame(X).astype(object)
    for rows in (X.tolist(), pd.DataFrame(X), frame):
        assert torch.equal(FLOW.log_prob(rows), FLOW.log_prob(X))


@pytest.mark.parametrize("shape", ["a", None, -3, 2.5, (1, -1), X, [[1], [1, 2]]], ids=range(7))
def test_shapes_are_whole_numbers(shape):
    for draw in (FLOW.sample, FLOW.sample_base, FLOW().sample, MARGINAL.sample):
        assert refusal(partial(draw, shape)).startswith("shape: expected a number of draws")
    assert MARGINAL.sample(3).shape == MARGINAL.sample((3,)).shape == (3, 2)


@pytest.mark.parametrize("t", ["a", None, 3, [0.5, 0.2], [[0.0, 1.0]], [0.0, 2.0]], ids=str)
def test_times_of_a_path_rise_within_the_unit_interval(t):
    assert refusal(lambda: FLOW.trajectory(X, t)).startswith("t: expected")


PARTS = {
    "hidden=64": ({"hidden": 64}, "such as hidden=(64, 64); got 64"),
    "hidden=text": ({"hidden": "64"}, "got '64'"),
    "hidden=floats": ({"hidden": (8.0, 8.0)}, "got (8.0, 8.0)"),
    "periods": ({"periods": 360.0}, "periods: expected a mapping such as {0: 360.0}; got 360.0"),
    "spheres=pair": ({"spheres": (0, 1)}, "such as [(0, 1)]; got (0, 1)"),
    "spheres=text": ({"spheres": "a"}, "such as [(0, 1)]; got 'a'"),
    "three widths": ({"hidden": (8, 8, 8)}, "expected two widths; got (8, 8, 8): an MLPField"),
    "no width": ({"hidden": (0, 8)}, "expected one or more positive widths; got (0, 8)"),
    "dim=0": ({"dim": 0}, "dim: expected at least 1; got 0"),
    "dim=rows": ({"dim": X}, "dim: expected a whole number; got array"),
    "dim=2.5": ({"dim": 2.5}, "dim: expected a whole number; got 2.5"),
    "context_dim=-1": ({"context_dim": -1}, "context_dim: expected at least 0; got -1"),
    "context_dim=none": ({"context_dim": None}, "context_dim: expected a whole number; got None"),
    "field=text": ({"field": "mlp"}, "field: expected an object or 'auto'; got 'mlp'"),
    "field=class": ({"field": cnf.MLPField}, "field: expected a Module; got <class"),
    "base=class": ({"base": cnf.NormalBase}, "base: expected a Base or a Distribution; got <cl"),
    "solver=int": ({"solver": 10}, "solver: expected a Solver; got 10"),
    "preprocess=none": ({"preprocess": None}, "preprocess: expected a Transform; got None"),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_a_flow_that_are_none_are_refused(name):
    options, told = PARTS[name]
    assert told in refusal(lambda: cnf.CNF(**{"dim": 2, **options}))


@pytest.mark.parametrize("field", [cnf.MLPField, cnf.ConcatSquashField, cnf.GatedField])
def test_every_field_says_how_widths_are_written(field):
    assert "such as hidden=(64, 64); got 64" in refusal(lambda: field(2, 64))


ASKED = {
    "one column": (lambda: FLOW.marginal(0), "columns: expected a list of numbers from 0 to 1"),
    "a name": (lambda: FLOW.marginal("ab"), "columns: expected a list of numbers"),
    "a list": (lambda: FLOW.conditional([0]), "given: expected a mapping of columns to numbers"),
    "text": (lambda: FLOW.conditional({0: "a"}), "given: expected a tensor or an array"),
    "three ends": (lambda: FLOW.conditional({0: (0, 1, 2)}), "expected a range (low, high)"),
}


@pytest.mark.parametrize("name", ASKED)
def test_questions_that_cannot_be_asked_are_refused(name):
    call, told = ASKED[name]
    assert told in refusal(call)


FITS = {
    "rows first": (lambda: cnf.fit(X, flow()), "flow: expected a CNF; got ndarray"),
    "steps=text": (lambda: cnf.fit(flow(), X, steps="10"), "got steps='10'"),
    "seconds=text": (lambda: cnf.fit(flow(), X, seconds="1"), "seconds='1'"),
    "tolerance=text": (lambda: cnf.fit(flow(), X, tolerance="a"), "number of nats; got 'a'"),
    "weights=text": (lambda: cnf.fit(flow(), X, weights="w"), "weights: expected a tensor"),
    "valid=path": (lambda: cnf.fit(flow(), X, "a.csv"), "x_valid: expected a tensor"),
    "seed=text": (lambda: cnf.fit(flow(), X, seed="a"), "seed: expected a whole number; got 'a'"),
    "seed=float": (lambda: cnf.fit(flow(), X, seed=1.5), "seed: expected a whole number; got 1.5"),
    "seed=long": (lambda: cnf.fit(flow(), X, seed=2**70), "seed: expected a number below 2^63"),
    "one callback": (lambda: cnf.fit(flow(), X, callbacks=print), "list of functions of the loop"),
    "no callback": (lambda: cnf.fit(flow(), X, callbacks=[3]), "list of functions of the loop"),
    "context=path": (lambda: cnf.fit(flow(), X, context="a.csv"), "context: expected a tensor"),
}


@pytest.mark.parametrize("name", FITS)
def test_arguments_of_a_fit_that_are_none_are_refused(name):
    call, told = FITS[name]
    assert told in refusal(call)


def energy(x):
    return -x.square().sum(-1)


SEEDED = {
    "snapshots": lambda seed: cnf.fit_snapshots(flow(), {0.0: X, 1.0: X}, seed=seed),
    "reverse KL": lambda seed: cnf.variational.fit_reverse_kl(flow(), energy, steps=1, seed=seed),
    "check": lambda seed: cnf.diagnostics.check(FLOW, X, seed=seed),
}


@pytest.mark.parametrize("name", SEEDED)
def test_text_is_no_seed(name):
    assert "seed: expected a whole number; got 'a'" in refusal(lambda: SEEDED[name]("a"))


def test_every_loop_wants_a_list_of_callbacks():
    fit = cnf.variational.fit_reverse_kl
    told = refusal(lambda: fit(flow(), energy, steps=1, callbacks=print))
    assert "list of functions of the loop" in told


def test_a_tolerance_is_a_number():
    assert "number of nats; got 'a'" in refusal(lambda: flow().calibrate(X, tolerance="a"))


FRAME = pd.DataFrame(X, columns=["a", "b"])
TABLE_FITS = {
    "device": ({"device": "gpu"}, "device: expected a device of torch, such as 'cpu' or 'cuda'"),
    "device=5.5": ({"device": 5.5}, "device: expected the name of a device; got 5.5"),
    "kinds=text": ({"kinds": "integer"}, "kinds: expected a mapping of column to type"),
    "seed": ({"seed": "a"}, "seed: expected a whole number; got 'a'"),
    "one callback": ({"callbacks": print}, "list of functions of the loop"),
}


@pytest.mark.parametrize("name", TABLE_FITS)
def test_arguments_of_the_fit_of_a_table_that_are_none_are_refused(name):
    options, told = TABLE_FITS[name]
    assert told in refusal(lambda: cnf.fit_table(FRAME, **options))


@pytest.mark.parametrize("method", ["sample", "rsample", "sample_and_log_prob", "sample_base"])
def test_a_seed_is_no_generator(method):
    told = refusal(lambda: getattr(FLOW, method)(3, generator=0))
    assert "got 0: torch.Generator().manual_seed(0) makes one" in told


def test_questions_want_a_generator_too():
    told = refusal(lambda: FLOW.conditional({0: 0.0}).sample((3,), generator=0))
    assert told.startswith("generator: expected a torch.Generator; got 0")


def test_a_bound_flow_takes_a_solver():
    assert "solver: expected a Solver; got 10" in refusal(lambda: FLOW.bind(solver=10))
