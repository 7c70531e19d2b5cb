"""The registry of parts that a model file names: what it refuses; the parts are in test_seams."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributions

import cnf
from cnf.registry import rebuild, register

STILL = type("Still", (cnf.MLPField,), {})


@pytest.mark.parametrize(
    "part",
    [
        {"field": STILL(2, (4, 4))},
        {"base": type("Bin", (cnf.NormalBase,), {})(2)},
        {"preprocess": type("Shear", (cnf.Affine,), {}).identity(2)},
        {"solver": type("Hewn", (cnf.Torchdiffeq,), {})()},
    ],
    ids=lambda part: next(iter(part)),
)
def test_unregistered_parts_are_loaded_with_their_classes_alone(part, tmp_path):
    flow, path, x = cnf.CNF(2, hidden=(4, 4), **part), tmp_path / "m", torch.randn(3, 2)
    flow.save(path)
    with pytest.raises(cnf.ModelFileError, match="pass the class to the loader"):
        cnf.load(path)
    again = cnf.load(path, classes=[type(next(iter(part.values())))])
    assert torch.equal(again.log_prob(x), flow.eval().log_prob(x))


@pytest.mark.slow
def test_whoever_loads_a_model_knows_every_part_of_the_package():
    """Whichever room made the model: no part is registered by the recipe alone."""
    loader = "from cnf.registry import REGISTERED; import cnf.tables; print(*sorted(REGISTERED))"
    done = subprocess.run(
        [sys.executable, "-c", loader], capture_output=True, text=True, check=True
    )
    rooms = Path(cnf.__file__).parent.rglob("*.py")
    marked = re.compile(r"^@register\n(?:@.*\n)*class (\w+)", re.MULTILINE)
    written = {name for path in rooms for name in marked.findall(path.read_text())}
    assert written and written <= set(done.stdout.split())


@pytest.mark.slow
def test_models_are_loaded_and_score_without_the_compiler(tmp_path):
    """On the device "meta", where a model from a file is built first, some functions of torch import
    its compiler, which takes seconds. Angles, whose frequencies are rounded, still do."""
    made = {
        "plain": cnf.CNF(2),
        "sphere": cnf.CNF(2, spheres=[(0, 1)]),
        "mlp": cnf.CNF(2, field=cnf.MLPField(2, (4, 4)), context_dim=0),
        "given": cnf.CNF(2, context_dim=1, hidden=(8, 8)),
    }
    for name, flow in made.items():
        flow.save(tmp_path / f"{name}.safetensors")
    kept = Path(__file__).parent / "models" / "1"
    code = """
import sys, torch, cnf
from cnf.tables.loading import load
for path in sys.argv[1:]:
    model = load(path)
    if isinstance(model, cnf.CNF):
        model.log_prob(torch.zeros(1, model.dim), *[torch.zeros(1, 1)] * (model.context_dim == 1))
    if "torch._dynamo" in sys.modules:
        sys.exit(path)
"""
    paths = [*tmp_path.iterdir(), *kept.glob("*.safetensors")]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_distribution_is_refused_at_save(tmp_path):
    base = distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    with pytest.raises(ValueError, match="write the density as a Base") as caught:
        cnf.CNF(2, base=base).save(tmp_path / "m")
    assert "\n" not in str(caught.value) and not any(tmp_path.iterdir())


def test_a_part_that_forgets_an_argument_is_refused_at_save(tmp_path):
    @register
    class Forgets(cnf.VelocityField):
        def __init__(self, dim, speed, *, context_dim=0):
            super().__init__(dim, context_dim)
            self.rate = speed

        def forward(self, t, x, context=None):
            return self.rate * x

    with pytest.raises(ValueError, match="keeps no attribute 'speed'"):
        cnf.CNF(2, field=Forgets(2, 1.0)).save(tmp_path / "m")


def test_two_classes_of_one_name_are_refused():
    with pytest.raises(ValueError, match="GatedField is taken by cnf"):
        register(type("GatedField", (STILL,), {}))


def test_a_part_of_another_kind_is_no_part():
    with pytest.raises(ValueError, match="'NormalBase' is not a registered VelocityField"):
        rebuild(cnf.VelocityField, {"class": "NormalBase"}, 2, 0)
