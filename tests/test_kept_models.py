"""Files written once stay readable: small models of each format version give the scores that they
gave.

`python tests/test_kept_models.py 1` writes the kinds that version 1 has not kept yet, or all of a
new one; what is there is never written again."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import cnf
from cnf.flows import ErrorModel
from cnf.recipe import fit_table_flow
from cnf.tables import FitMetadata, Schema, TableFlow, load

FOLDER = Path(__file__).parent / "models"
X = torch.tensor([[0.3, -0.7], [1.5, 0.2], [-2.0, 2.5]], dtype=torch.float64)
CONTEXT = torch.tensor([[0.5], [-1.0], [0.0]], dtype=torch.float64)
TABLE = pd.DataFrame({"x": [0.5, -1.25, None], "kind": ["a", "b", "a"], "count": [3, 0, 7]})


def gated(**options):
    return cnf.GatedField(2, (4, 5), modulation=3, **options)


def mixture():
    factors = torch.tensor([[[0.8, 0.0], [0.1, 0.9]], [[0.5, 0.0], [0.0, 0.6]]])
    return cnf.MixtureBase(
        torch.tensor([1.0, 3.0]), torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), factors
    )


def whitened():
    return cnf.Affine(torch.tensor([0.5, -0.5]), torch.tensor([[2.0, 0.3], [0.0, 1.5]]))


def gaussianized():
    rows = torch.randn(
        200, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    ).exp()
    return cnf.Chain(cnf.Gaussianize.fit(rows), whitened())


def heaped():
    """A fitted typed model: counts that heap at tens, and a column with heavy tails."""
    random = np.random.default_rng(0)
    counts = np.where(
        random.random(600) < 0.5, 10 * random.integers(0, 5, 600), random.integers(0, 41, 600)
    )
    kinds = np.where(random.random(600) < 0.5, "a", "b")
    table = pd.DataFrame({"x": random.standard_t(2, 600), "kind": kinds, "count": counts})
    model = TableFlow(Schema.infer(table), hidden=(4, 4))
    fit_table_flow(model, table, steps=3, imputer=False)
    return model


KINDS = {
    "gated": lambda: cnf.CNF(2, field=gated(), preprocess=whitened()),
    "gated_tanh_given": lambda: cnf.CNF(
        2, context_dim=1, field=gated(first="tanh", context_dim=1)
    ),
    "mlp_hutchinson": lambda: cnf.CNF(
        2,
        field=cnf.MLPField(2, (5, 4, 3), activation="silu"),
        divergence=cnf.Hutchinson(2, "gaussian"),
    ),
    "squash_student_exact": lambda: cnf.CNF(
        2, field=cnf.ConcatSquashField(2, (6,)), divergence="exact", base=cnf.StudentTBase(2, 4.5)
    ),
    "mixture_rk4": lambda: cnf.CNF(
        2, field=gated(), base=mixture(), solver=cnf.Grid((0.0, 0.1, 1 / 3, 1.0), "rk4")
    ),
    "contaminated_adaptive": lambda: cnf.CNF(
        2,
        field=gated(),
        base=cnf.ContaminatedBase(mixture()),
        solver=cnf.Torchdiffeq("dopri5", 1e-6, 1e-6),
    ),
    "fixed_steps": lambda: cnf.CNF(2, field=gated(), solver=cnf.Torchdiffeq("rk4", step_size=0.1)),
    "gaussianized_double": lambda: cnf.CNF(2, field=gated(), preprocess=gaussianized()).double(),
    "typed": lambda: TableFlow(Schema.infer(pd.concat([TABLE] * 30)), hidden=(4, 4)),
    "typed_heaped": heaped,
}


def stirred(model):
    """The model with weights that move it, drawn from a seed."""
    for k, parameter in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(k)
        with torch.no_grad():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator).to(parameter))
    return model


@torch.no_grad()
def scores(model) -> list[float]:
    """Log-densities of three rows in float64, so that machines agree to many digits."""
    model = model.double().eval()
    if isinstance(model, TableFlow):
        return model.log_prob(TABLE).tolist()
    context = CONTEXT if model.context_dim else None
    return model.log_prob(X, context, generator=torch.Generator().manual_seed(0)).tolist()


def write(version: str) -> None:
    """The models of one format version that are not there yet, and what they say of three rows."""
    folder = FOLDER / version
    folder.mkdir(parents=True, exist_ok=True)
    told = folder / "scores.json"
    said = json.loads(told.read_text()) if told.exists() else {}
    for name in KINDS.keys() - said.keys():
        torch.manual_seed(0)
        model = stirred(KINDS[name]())
        table = isinstance(model, TableFlow)
        model.metadata = FitMetadata(rows=3) if table else {"rows": 3}
        if not isinstance(model, TableFlow):
            model.error_model = ErrorModel(tolerance=1e-2, bar_scale=0.5)
        model.save(folder / f"{name}.safetensors")
        said[name] = scores(load(folder / f"{name}.safetensors"))
    told.write_text(json.dumps(said, indent=1) + "\n")


KEPT = sorted(FOLDER.glob("[0-9]*/*.safetensors"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_kept_model_gives_the_scores_that_it_gave(path):
    said = json.loads((path.parent / "scores.json").read_text())[path.stem]
    assert scores(load(path)) == pytest.approx(said, abs=1e-6, nan_ok=True)
    assert path.stat().st_size < 40_000


def test_every_kind_is_kept():
    assert {path.stem for path in KEPT} >= KINDS.keys()


if __name__ == "__main__":
    write(sys.argv[1])
