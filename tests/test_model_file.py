"""Model files: what is loaded is what was saved, and what is no sound model is refused in one
line."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import F64, LinearField, normal, seeded, stirred
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributions import Independent, Laplace

import cnf
from cnf.flows import ErrorModel, model_file
from cnf.flows.model_file import read_model, write_model


def mixture() -> cnf.MixtureBase:
    return cnf.MixtureBase(
        torch.tensor([1.0, 3.0]), torch.randn(2, 2), torch.eye(2).expand(2, 2, 2) * 0.8
    )


FLOWS = {
    "default": lambda: cnf.CNF(2, hidden=(8, 12)),
    "tanh": lambda: cnf.CNF(
        2, field=cnf.GatedField(2, (5, 6), first="tanh", frequency=0.7, modulation=9)
    ),
    "context": lambda: cnf.CNF(
        2, context_dim=3, hidden=(8, 8), solver=cnf.Torchdiffeq("rk4", step_size=0.07)
    ),
    "mlp": lambda: cnf.CNF(
        2,
        field=cnf.MLPField(2, (7, 6, 5), activation="silu"),
        divergence=cnf.Hutchinson(3, "gaussian"),
    ),
    "sum": lambda: cnf.CNF(
        2,
        field=cnf.SumField([cnf.GatedField(2, (5, 6), frequency=f) for f in (0.5, 4.0)]),
        solver=cnf.Grid((0.0, 0.2, 0.5, 0.6, 1.0), "adams"),
    ),
    "squash": lambda: cnf.CNF(
        2, field=cnf.ConcatSquashField(2, (6,)), divergence="exact", base=cnf.StudentTBase(2, 4.5)
    ),
    "mixture": lambda: cnf.CNF(
        2, hidden=(8, 8), base=mixture(), preprocess=cnf.Affine(torch.randn(2), torch.eye(2) * 3)
    ),
    "contaminated": lambda: cnf.CNF(
        2, hidden=(8, 8), base=cnf.ContaminatedBase(mixture(), 0.01, 3)
    ),
    "double": lambda: cnf.CNF(
        2, hidden=(8, 8), solver=cnf.Grid((0.0, 0.1, 1 / 3, 1.0), "rk4")
    ).double(),
}


def make(name: str) -> cnf.CNF:
    return stirred(FLOWS[name]())


def numbers(flow: cnf.CNF) -> torch.Tensor:
    x, context = normal(6, 2), normal(6, 3, seed=1) if flow.context_dim else None
    with torch.no_grad():
        return flow.eval().log_prob(x, context, generator=seeded(3))


@pytest.fixture
def model(tmp_path):
    """The path of a sound model file."""
    path = tmp_path / "model.safetensors"
    make("default").save(path)
    return path


@pytest.mark.parametrize("name", FLOWS)
def test_loaded_is_saved(name, tmp_path):
    flow = make(name)
    flow.error_model = ErrorModel(
        1 / 3, bar_scale=0.1, quadrature_weight=0.7, floor=1e-4, rounding=12.5
    )
    flow.metadata = {"columns": ["a", "β"], "nested": {"x": [1, 2.5, None, True]}}
    flow.save(tmp_path / "flow")
    loaded = cnf.load(tmp_path / "flow")
    assert torch.equal(numbers(loaded), numbers(flow))
    assert (loaded.solver, loaded.error_model, loaded.metadata) == (
        flow.solver,
        flow.error_model,
        flow.metadata,
    )
    assert (loaded.divergence, loaded.automatic) == (flow.divergence, flow.automatic)
    assert (loaded.dim, loaded.context_dim) == (flow.dim, flow.context_dim)
    assert not loaded.training
    for (key, a), (other, b) in zip(flow.state_dict().items(), loaded.state_dict().items()):
        assert key == other and a.dtype == b.dtype and torch.equal(a, b)


def test_saving_and_loading_twice_gives_the_same_bytes(model, tmp_path):
    cnf.load(model).save(tmp_path / "again")
    assert model.read_bytes() == (tmp_path / "again").read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_default_dtype_of_the_reader_does_not_matter(dtype, tmp_path):
    flow = make("default").to(dtype)
    flow.save(tmp_path / "flow")
    expected = numbers(flow)
    torch.set_default_dtype(F64 if dtype == torch.float32 else torch.float32)
    try:
        loaded = cnf.load(tmp_path / "flow")
    finally:
        torch.set_default_dtype(torch.float32)
    assert loaded.dtype == dtype and torch.equal(numbers(loaded), expected)


def test_a_flow_made_under_another_default_dtype(tmp_path):
    torch.set_default_dtype(F64)
    try:
        flow = make("default")
    finally:
        torch.set_default_dtype(torch.float32)
    flow.save(tmp_path / "flow")
    assert torch.equal(numbers(cnf.load(tmp_path / "flow")), numbers(flow))


def test_loading_leaves_torchs_random_numbers_alone(model):
    state = torch.random.get_rng_state()
    cnf.load(model)
    assert torch.equal(state, torch.random.get_rng_state())


def test_nothing_is_pickled(model, monkeypatch):
    def refuse(*arguments, **keywords):
        raise AssertionError("pickle")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    cnf.load(model)
    assert b"torch" not in model.read_bytes() and not model.read_bytes().startswith(
        (b"PK", b"\x80")
    )


def refused(path) -> str:
    """The message with which a file is refused: one line that names the file."""
    with pytest.raises(cnf.ModelFileError) as caught:
        cnf.load(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and len(message) < 500 + len(str(path))
    return message


def rewritten(path, change) -> None:
    """Apply `change(header, configuration, tensors)` to a model file, with no regard for its
    digest."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        header = json.loads(file.metadata()["cnf"])
    configuration = json.loads(header["configuration"])
    change(header, configuration, tensors)
    header["configuration"] = json.dumps(configuration)
    save_file(tensors, path, metadata={"cnf": json.dumps(header)})


def signed(path, change) -> None:
    """A file with its digest right and its contents wrong, as another program may write it."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        configuration = json.loads(json.loads(file.metadata()["cnf"])["configuration"])
    change(configuration, tensors)
    write_model(path, configuration, tensors)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00", b"garbage", b"PK\x03\x04", b"{}", bytes(range(256)) * 50, b"\xff" * 64],
)
def test_garbage(content, tmp_path):
    path = tmp_path / "garbage"
    path.write_bytes(content)
    refused(path)


@given(content=st.binary(max_size=300))
def test_any_bytes(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "bytes"
    path.write_bytes(content)
    refused(path)


def test_sizes_beyond_all_bounds_with_nothing_in_them(model):
    """Shape (0, 2⁶³) takes no byte, and torch cannot say its numbers."""
    content = model.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    header["none"] = {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [len(data), len(data)]}
    text = json.dumps(header).encode()
    model.write_bytes(len(text).to_bytes(8, "little") + text + data)
    refused(model)


def test_what_would_not_be_read_is_not_written(tmp_path):
    for solver in (cnf.Grid.uniform(5000), cnf.Torchdiffeq("dopri5", max_evaluations=2_000_000)):
        with pytest.raises(ValueError, match=r"more than 4096|beyond 1e"):
            cnf.CNF(2, solver=solver).save(tmp_path / "m")
    assert not any(tmp_path.iterdir())


def test_missing_files_and_folders(tmp_path):
    assert "no such" in refused(tmp_path / "absent")
    refused(tmp_path)


def test_truncated_at_every_length(model):
    whole = model.read_bytes()
    for length in (*range(0, len(whole), 97), len(whole) - 1):
        model.write_bytes(whole[:length])
        refused(model)


def test_bytes_behind_the_end(model):
    model.write_bytes(model.read_bytes() + b"\x00")
    refused(model)


def test_a_flipped_bit_is_refused_or_harmless(model):
    """Every part of the file, header and weights alike; padding and spelling may change
    nothing."""
    whole, expected = model.read_bytes(), numbers(cnf.load(model))
    refusals = 0
    for k, place in enumerate(range(0, len(whole), 131)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (k % 8)
        model.write_bytes(bytes(damaged))
        try:
            assert torch.equal(numbers(cnf.load(model)), expected)
        except cnf.ModelFileError as failure:
            assert "\n" not in str(failure)
            refusals += 1
    assert refusals > 0.95 * len(range(0, len(whole), 131))


def test_other_safetensors_files(tmp_path):
    path = tmp_path / "other"
    for metadata in (None, {}, {"format": "pt"},
                     {"cnf": ""}, {"cnf": "not json"}, {"cnf": "[]"}, {"cnf": "3"},
                     {"cnf": "[" * 100_000}, {"cnf": '{"format": "1"}'}):  # fmt: skip
        save_file({"weight": torch.zeros(3)}, path, metadata=metadata)
        refused(path)


@pytest.mark.parametrize("version", ["3", "0", "latest", 1, None])
def test_unknown_format_version(model, version):
    rewritten(model, lambda header, configuration, tensors: header.update(format=version))
    assert "format" in refused(model)


def test_a_file_of_a_later_format_need_not_have_todays_parts(model):
    save_file({}, model, metadata={"cnf": json.dumps({"format": "7", "tree": []})})
    assert "update cnf" in refused(model)


@pytest.mark.parametrize(
    "change",
    [
        lambda c, t: c["field"].update({"class": "Sequential"}),
        lambda c, t: c["field"].update(unknown=3),
        lambda c, t: c["field"].update(hidden=[8]),
        lambda c, t: c["field"].update(hidden=None),
        lambda c, t: c["base"].update({"class": "os.system"}),
        lambda c, t: c["solver"].update({"class": "Euler"}),
        lambda c, t: c["solver"].update(nodes=[0, 1, 0.5]),
        lambda c, t: c["solver"].update(nodes="0101"),
        lambda c, t: c.update(divergence="guess"),
        lambda c, t: c.update(divergence={"probes": 0}),
        lambda c, t: c.update(dim=3),
        lambda c, t: c.update(dim="2"),
        lambda c, t: c.update(dim=-1),
        lambda c, t: c.update(field=[]),
        lambda c, t: c.update(automatic=4),
        lambda c, t: c.update(automatic=["base", 0.5]),
        lambda c, t: c["field"].update(hidden=[0, 4]),
        lambda c, t: c["field"].update(modulation=0),
        lambda c, t: c.update(error_model=[1]),
        lambda c, t: c["error_model"].update(quadrature_weight=[1, 2]),
        lambda c, t: c["error_model"].update(bar_scale=True),
        lambda c, t: c["error_model"].update(rounding=-1.0),
        lambda c, t: c["error_model"].update(floor=-1.0),
        lambda c, t: c["field"].update(hidden=[10**5, 10**5]),
        lambda c, t: c["solver"].update(nodes=[0.0, *[0.5] * 5000, 1.0]),
        lambda c, t: c.update(dtype="object"),
        lambda c, t: c.pop("dim"),
        lambda c, t: c.pop("metadata"),
        lambda c, t: t.pop("field.W1"),
        lambda c, t: t.update(extra=torch.zeros(1)),
        lambda c, t: t.update({"field.W1": torch.zeros(3, 3)}),
        lambda c, t: t["field.W1"].fill_(torch.nan),
        lambda c, t: t["preprocess.matrix"].fill_(torch.inf),
    ],
)
def test_contents_that_fit_no_flow(model, change):
    signed(model, change)
    refused(model)


def test_weights_or_configuration_changed_by_hand(model):
    whole = model.read_bytes()
    for change in (
        lambda h, c, t: t["field.W1"].add_(1e-6),
        lambda h, c, t: c["field"].update(frequency=3.1),
        lambda h, c, t: h.pop("digest"),
        lambda h, c, t: h.update(digest=None),
    ):
        model.write_bytes(whole)
        rewritten(model, change)
        assert "damaged" in refused(model)


def test_a_failure_leaves_no_file_and_keeps_the_old_one(model, monkeypatch):
    before = model.read_bytes()

    def fail(path, content):
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    for name in (model.name, "new"):
        with pytest.raises(OSError, match="disk full"):
            make("default").save(model.parent / name)
    assert model.read_bytes() == before
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_what_a_file_cannot_rebuild_is_refused_before_writing(tmp_path):
    class Forgetful(cnf.NormalBase):
        def __init__(self, dim, scale):
            super().__init__(dim)

    laplace = Independent(Laplace(torch.zeros(2), torch.ones(2)), 1)
    for base, message in (
        (Forgetful(2, scale=1.0), "keeps no attribute 'scale'"),
        (laplace, "cannot rebuild a torch distribution"),
    ):
        with pytest.raises(ValueError, match=message):
            cnf.CNF(2, base=base).save(tmp_path / "own")
    flow = make("default")
    flow.metadata = {"loss": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        flow.save(tmp_path / "own")
    assert list(tmp_path.iterdir()) == []


class Tanh(torch.nn.Module):
    """A field as others write them."""

    def __init__(self, width=7):
        super().__init__()
        self.width = width
        self.inside = torch.nn.Linear(3, width)
        self.out = torch.nn.Linear(width, 2)

    def forward(self, t, x):
        return self.out(torch.tanh(self.inside(torch.cat([t, x], -1))))


def test_parts_that_are_not_registered_are_loaded_with_their_classes(tmp_path):
    class Wide(cnf.NormalBase):
        pass

    for flow, classes in (
        (cnf.CNF(2, field=Tanh(5)), [Tanh]),
        (cnf.CNF(2, field=LinearField(2), base=Wide(2)), [Wide, LinearField]),
    ):
        flow.save(tmp_path / "own")
        x = torch.randn(5, 2, dtype=flow.dtype)
        assert torch.equal(
            cnf.load(tmp_path / "own", classes=classes).log_prob(x), flow.log_prob(x)
        )
        with pytest.raises(cnf.ModelFileError, match="pass the class to the loader"):
            cnf.load(tmp_path / "own")
        with pytest.raises(cnf.ModelFileError, match="pass the class to the loader"):
            cnf.load(tmp_path / "own", classes=classes[1:])


def test_a_module_is_fitted_as_a_field():
    flow = cnf.CNF(2, field=Tanh())
    cnf.fit(flow, torch.randn(60, 2) + 1, steps=4)
    assert flow.log_prob(torch.zeros(3, 2)).isfinite().all()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="cannot be written"):
        make("default").save(tmp_path / "absent" / "flow")


def test_a_file_from_before_bars_had_a_weight_keeps_its_bars(tmp_path):
    flow = cnf.CNF(2, hidden=(8, 8))
    path = tmp_path / "old.safetensors"
    flow.save(path)
    configuration, tensors = read_model(path)
    for newer in ("quadrature_weight", "floor", "rounding"):
        del configuration["error_model"][newer]
    write_model(path, configuration, tensors)
    assert cnf.load(path).error_model == ErrorModel() and ErrorModel().quadrature_weight == 1


def test_whole_numbers_of_a_file_are_numbers_that_tensors_take():
    """A damaged file held an integer of 30 digits: scoring raised an OverflowError."""
    config = {"tolerance": 1e-3, "bar_scale": 10**18, "floor": 0}
    assert ErrorModel.from_config(config).bar_scale == 1e18
    assert model_file._parsed('{"seed": 18446744073709551615}') == {"seed": 2**64 - 1}
    with pytest.raises(ValueError, match="a number of 31 digits"):
        model_file._parsed(f'{{"bar_scale": {10**30}}}')
