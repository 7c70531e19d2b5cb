"""Exported models answer as the model does, in a process without torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import scipy.special
import torch
from pages import blocks

import cnf
from cnf.cli import main
from cnf.export import ExportError, SampleProgram, ScoreProgram, write_program
from cnf.export.noise import drawing
from cnf.export.special import CommonOperators
from cnf.export.tracing import export, folded
from cnf.flows import ContaminatedBase, MixtureBase, NormalBase, StudentTBase
from cnf.flows.periodic_bases import UniformCircleBase, UniformSphereBase
from cnf.flows.product_base import ProductBase
from cnf.flows.source_base import SourceBase
from cnf.tables import Column, FitMetadata, Schema, TableFlow
from cnf.tables.loading import load_table_flow, wrapped
from cnf.transforms import Affine, BoundedToReal, Chain, Gaussianize

PAGE = Path(__file__).parent.parent / "docs" / "score-without-torch.md"
KEPT = Path(__file__).parent / "models" / "export"
COLUMNS = (
    Column("price", "positive", lower=0.0),
    Column("share", "bounded", lower=0.0, upper=5.0),
    Column("height", "real"),
)
# Nats by which a field has to move some row: an export of one that stands still proves nothing.
MOVED = 1.0


def moving(flow, x, context=None):
    """The flow with weights that move rows far, calibrated."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
        flow.calibrate(x, context=context)
    require_moving(flow, x, context)
    return flow


@torch.no_grad()
def require_moving(flow, x, context=None):
    y, ladj = flow.preprocess(x)
    still = flow.base.log_prob(y.to(flow.dtype)) + ladj
    assert (flow.log_prob(x, context) - still).abs().max() > MOVED


def prices(rows, seed=0):
    """Rows of a positive, a bounded and a real column that depend on each other."""
    normal = torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed)).double()
    mixed = normal @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 0.7]]).double()
    a, b, c = mixed.unbind(1)
    return torch.stack([a.exp(), 5 * b.sigmoid(), 1000 + 50 * c], 1)


@pytest.fixture(scope="module")
def model():
    """A model with splines, ranges and a mixture with heavy tails; `cnf export` wrote
    prices.onnx."""
    model = load_table_flow(KEPT / "prices.safetensors")
    require_moving(model.flow, prices(50))
    return model


def made():
    """The model, as it was made."""
    x = prices(400)
    support = BoundedToReal([(0.0, None), (0.0, 5.0), (None, None)])
    splines = Gaussianize.fit(support(x)[0])
    whitened = Affine.whiten(splines(support(x)[0])[0])
    means = torch.tensor([[1.0, 0.0, 0.0], [-0.5, 0.0, 0.0]])
    mixture = MixtureBase(torch.tensor([0.3, 0.7]), means, 0.9 * torch.eye(3).repeat(2, 1, 1))
    torch.manual_seed(0)
    base, preprocess = ContaminatedBase(mixture), Chain(support, splines, whitened)
    flow = cnf.CNF(3, hidden=(16, 16), base=base, preprocess=preprocess)
    model = TableFlow(Schema(COLUMNS), moving(flow, x))
    model.metadata = FitMetadata(rows=400, valid_rows=0)
    return model


def run(path, **inputs):
    return onnxruntime.InferenceSession(path).run(
        None, {name: part.numpy() for name, part in inputs.items()}
    )


def evaluated(model, x, context=None):
    """Scores of rows, and which of them needed no second look."""
    found = model.flow.evaluate(x, context)
    return found, (found.nfe == model.flow.solver.nfe).numpy()


@torch.no_grad()
def close_once(found, wanted, once):
    """The same scores, bars and verdicts, where no second look was needed."""
    assert once.mean() > 0.9
    for one, other in zip(found[:2], (wanted.log_prob, wanted.error)):
        close(one[once], other.numpy()[once])
    assert (found[2] == wanted.ok.numpy())[once].all()


def close(found, wanted):
    """Within the limits that a file promises: 1e-4 nats, or 1e-5 of the value."""
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 60, 3_000])
def test_a_file_scores_any_number_of_unseen_rows_as_the_model_does(model, rows):
    x = prices(rows, seed=rows + 10)
    close_once(run(KEPT / "prices.onnx", x=x), *evaluated(model, x))


def test_rows_beyond_the_tolerance_are_flagged(model):
    x = prices(3_000, seed=5)
    x[:, 2] += 400 * torch.linspace(-1, 1, 3_000).double() ** 3
    _, error, ok = run(KEPT / "prices.onnx", x=x)
    _, once = evaluated(model, x)
    assert 0 < once.sum() < 3_000
    assert (ok == once).mean() > 0.999  # a bar may lie on the tolerance itself
    assert error[~ok].min() > model.flow.error_model.tolerance


def test_rows_outside_and_rows_that_lack_a_number(model):
    x = prices(5)
    x[0, 0], x[1, 1], x[2, 2], x[3, 0] = -1.0, 5.0, torch.nan, torch.inf
    log_prob, error, ok = run(KEPT / "prices.onnx", x=x)
    assert (log_prob[:2] == -np.inf).all() and np.isnan(log_prob[2:4]).all()
    assert ok.tolist() == [True, True, False, False, True]
    close(log_prob[4:], model.flow.log_prob(x[4:]).detach())
    assert np.isfinite(error[[0, 1, 4]]).all()


def test_the_lines_of_the_page_score_without_torch(model, tmp_path):
    (code,) = [b.text for b in blocks(PAGE.read_text()) if "onnxruntime" in b.text]
    assert len([line for line in code.splitlines() if line]) <= 11
    shutil.copy(KEPT / "prices.onnx", tmp_path / "model.onnx")
    table = model.sample(2_500, generator=torch.Generator().manual_seed(3))
    table.to_csv(tmp_path / "numbers.csv", index=False)
    code += "import sys; assert not {'torch', 'cnf'} & set(sys.modules)\n"
    code += "np.save('found', (log_prob, error, ok))"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    x = torch.tensor(table.to_numpy(dtype=float))
    close_once(np.load(tmp_path / "found.npy"), *evaluated(model, x))


def test_the_file_says_what_it_is():
    session = onnxruntime.InferenceSession(KEPT / "prices.onnx")
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["cnf.columns"]) == ["price", "share", "height"]
    assert json.loads(said["cnf.tolerance"]) == 1e-3
    assert [part.name for part in session.get_outputs()] == ["log_prob", "error", "ok"]


@pytest.fixture(params=["plain", pytest.param("prices", marks=pytest.mark.slow)])
def traceable(request, model):
    """A model, and rows to score."""
    if request.param == "prices":
        return model, prices(123, seed=2)
    x = torch.randn(60, 2)
    flow = moving(cnf.CNF(2, hidden=(8, 8), base=NormalBase(2)), x)
    flow.solver = cnf.Grid.uniform(4, "adams")
    return wrapped(flow), x.double()


@pytest.mark.slow
def test_a_traced_program_takes_any_number_of_rows(traceable):
    """As the files of ONNX do, which the other tests score with."""
    program, x = ScoreProgram(traceable[0]), traceable[1]
    with CommonOperators():
        graph = folded(export(program, program).module(check_guards=False))
    with torch.no_grad():
        for found, wanted in zip(graph(x), program(x)):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


def typed_table(rows, seed=0):
    """A positive column, integers of narrow and of wide cells, and one with a repeated value."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(rows, 3))
    gain = np.where(random.random(rows) < 0.3, 0.0, z[:, 2] + z[:, 0])
    age, children = (
        np.round(45 + 12 * z[:, 0] + 4 * z[:, 1]),
        random.poisson(np.exp(0.4 * z[:, 1])),
    )
    return pd.DataFrame(
        {"wage": np.exp(z[:, 1]), "age": age.astype(int), "children": children, "gain": gain}
    )


@pytest.fixture(scope="module")
def typed():
    """A typed model whose field moves rows far."""
    kinds = {"age": "integer", "children": "integer"}
    model = cnf.fit_table(typed_table(600), kinds=kinds, steps=20)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.flow.field.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    model.flow.solver = cnf.Grid.uniform(40, "adams")
    return model


def typed_parity(typed, answer):
    """Rows of ordinary numbers and narrow cells have the model's scores; the others are flagged."""
    table = typed_table(1_500, seed=8)
    table.loc[0, "wage"] = -1.0
    found = [part.numpy() for part in answer(torch.tensor(table.to_numpy(dtype=float)))]
    wanted = typed.evaluate(table)
    ordinary = (table["gain"] != 0).to_numpy()
    once = ordinary & (wanted.nfe == typed.flow.solver.nfe).numpy()
    assert once.sum() > 100, "no narrow cells"
    close(found[0][once], wanted.log_prob.numpy()[once])
    close(found[1][once], wanted.error.numpy()[once])
    assert found[2][once].all() and not found[2][~ordinary].any()
    assert found[0][0] == -np.inf or not ordinary[0]


@torch.no_grad()
def test_a_typed_program_answers_as_the_model_does(typed):
    typed_parity(typed, ScoreProgram(typed))


@pytest.mark.slow
def test_a_typed_file_answers_as_the_model_does(typed, tmp_path):
    write_program(ScoreProgram(typed), tmp_path / "typed.onnx")
    typed_parity(typed, lambda x: map(torch.tensor, run(tmp_path / "typed.onnx", x=x)))


@pytest.mark.slow
def test_the_command_writes_the_kept_file_again(model, tmp_path, capsys):
    command = ["export", f"{KEPT}/prices.safetensors", "-o", f"{tmp_path}/new.onnx", "--json"]
    assert main(command) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["inputs"] == {"x": 3} and said["difference"] < 1e-4
    x = prices(1_000, seed=77)
    for found, kept in zip(run(tmp_path / "new.onnx", x=x), run(KEPT / "prices.onnx", x=x)):
        np.testing.assert_allclose(found, kept, rtol=1e-6, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_a_sampler_makes_the_rows_that_the_model_has(model, tmp_path):
    program = SampleProgram(model)
    write_program(program, tmp_path / "sampler.onnx")
    noise = torch.randn(40_000, program.inputs["noise"], dtype=torch.float64)
    x, log_prob = run(tmp_path / "sampler.onnx", noise=noise)
    found = model.flow.evaluate(torch.tensor(x))
    # The way back passes the grid in the other direction.
    assert np.quantile(np.abs(log_prob - found.log_prob.numpy()), 0.99) < 1e-2
    ours = model.flow.sample((40_000,), generator=torch.Generator().manual_seed(9)).double()
    for j in range(3):
        assert scipy.stats.ks_2samp(x[:, j], ours[:, j]).pvalue > 1e-4


@pytest.mark.slow
def test_context_and_tails_are_exported(tmp_path):
    random = torch.Generator().manual_seed(0)
    c = torch.randn(400, 2, generator=random).double()
    x = torch.randn(400, 2, generator=random).double() + c
    base, whitened = StudentTBase(2, df=6.0), Affine.whiten(x)
    flow = cnf.CNF(2, hidden=(16, 16), context_dim=2, base=base, preprocess=whitened)
    flow.context_map = Affine.standardize(c)
    model = wrapped(moving(flow, x, c))
    write_program(ScoreProgram(model), tmp_path / "score.onnx")
    close_once(run(tmp_path / "score.onnx", x=x, context=c), *evaluated(model, x, c))
    write_program(SampleProgram(model), tmp_path / "sample.pt2")


@pytest.mark.parametrize(
    ("columns", "solver", "said"),
    [
        (
            (Column("n", "categorical", levels=("a", "b")),),
            None,
            "column 'n'.*categor.*cnf.Scorer",
        ),
        ((Column("n", "integer", step=1.0),), None, "cell_error.*fit it again"),
        ((Column("x", "real"),), cnf.Torchdiffeq(), "solver: .*calibrate"),
        ((Column("x", "real"),), cnf.Grid.uniform(4, "rk4"), "solver: .*rk4"),
        ((Column("x", "real"),), cnf.Grid.uniform(4, "dopri5"), "solver: .*dopri5.*calibrate"),
    ],
)
def test_what_cannot_be_exported_says_why(columns, solver, said):
    schema = Schema(columns)
    model = TableFlow(schema, cnf.CNF(1, hidden=(4, 4)) if schema.plain else None)
    if solver is not None:
        model.flow.solver = solver
    with pytest.raises(ExportError, match=said) as refused:
        ScoreProgram(model)
    assert "\n" not in str(refused.value)


def test_a_field_without_a_closed_form_and_a_wrong_name_are_refused(model, tmp_path):
    with pytest.raises(ExportError, match=r"field: .*MLPField"):
        ScoreProgram(wrapped(cnf.CNF(1, field=cnf.MLPField(1))))
    path = tmp_path / "model.txt"
    with pytest.raises(ExportError, match=r"ends in .onnx or .pt2"):
        write_program(ScoreProgram(model), path)
    assert not path.exists()


@pytest.mark.parametrize(
    "base",
    [
        NormalBase(2),
        StudentTBase(2, df=5.0),
        ContaminatedBase(NormalBase(2), share=0.3),
        MixtureBase(torch.ones(2), torch.tensor([[-4.0, 0.0], [4.0, 1.0]]), torch.eye(2).repeat(2, 1, 1)),
        ProductBase([NormalBase(1), UniformCircleBase(1), UniformSphereBase()]),
    ],
)  # fmt: skip
def test_draws_from_normal_numbers_follow_the_base(base):
    width, draw = drawing(base)
    generator = torch.Generator().manual_seed(4)
    made = draw(torch.randn(20_000, width, generator=generator))
    ours = base.sample((20_000,), generator)
    for found, wanted in zip((*made.T, made.sum(1)), (*ours.T, ours.sum(1))):
        assert scipy.stats.ks_2samp(found, wanted).pvalue > 1e-4


def test_functions_of_common_operators_are_those_of_scipy():
    z = torch.linspace(-37, 26, 5001).double()
    p = torch.cat(
        [torch.logspace(-299, -0.31, 2000), 1 - torch.logspace(-15, -0.31, 500)]
    ).double()
    p = p[(p > 0) & (p < 1)]
    with CommonOperators():
        found = torch.erfc(z), torch.special.log_ndtr(z), torch.special.ndtri(p)
        hyperbolic = torch.asinh(z), torch.sinh(z)
        assert z.clamp(-1, 2).equal(
            torch.maximum(torch.minimum(z, z.new_tensor(2)), z.new_tensor(-1))
        )
    z, p = z.numpy(), p.numpy()
    wanted = scipy.special.erfc(z), scipy.special.log_ndtr(z), scipy.special.ndtri(p)
    tails = z < 0, z > 0  # of log Φ and of erfc, which have their digits there
    np.testing.assert_allclose(found[0][tails[1]], wanted[0][tails[1]], rtol=1e-12)
    np.testing.assert_allclose(found[1][tails[0]], wanted[1][tails[0]], rtol=1e-12)
    for one, other in zip(found, wanted):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(hyperbolic[0], np.arcsinh(z), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(hyperbolic[1], np.sinh(z), rtol=1e-12, atol=1e-14)


def test_a_model_that_starts_from_a_source_is_refused():
    flow = moving(cnf.CNF(2, hidden=(4, 4)), torch.randn(50, 2))
    flow.base = SourceBase(cnf.CNF(2), Affine.identity(2))
    with pytest.raises(ExportError, match=r"flow of a source.*score with cnf\.Scorer"):
        ScoreProgram(wrapped(flow))
