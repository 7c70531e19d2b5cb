"""The standard benchmarks from small files in their layout, and the tables bundled with
scikit-learn."""

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from cnf.datasets.benchmarks import BENCHMARKS, load_benchmark
from cnf.datasets.bundled import BUNDLED, bundled_table

RNG = np.random.default_rng(0)
PATHS = {
    "POWER": "power/data.npy",
    "GAS": "gas/ethylene_CO.parquet",
    "HEPMASS": "hepmass/1000_train.csv",
    "MINIBOONE": "miniboone/data.npy",
    "BSDS300": "BSDS300/BSDS300.hdf5",
}


def save_array(root, folder, rows):
    (root / folder).mkdir()
    np.save(root / folder / "data.npy", rows)


def check_types(split):
    assert all(part.dtype == torch.float32 and part.isfinite().all() for part in split)


@pytest.fixture
def power(tmp_path):
    """Column j of row i holds 100 i + j, so that rows and columns can be told apart."""
    rows = 100.0 * np.arange(1005)[:, None] + np.arange(8)
    save_array(tmp_path, "power", rows)
    return tmp_path


def test_power_splits_and_standardizes_by_train_and_valid(power):
    split = load_benchmark("POWER", power)
    check_types(split)
    assert [tuple(part.shape) for part in split] == [(815, 6), (90, 6), (100, 6)]
    rest = torch.cat((split.train, split.valid)).double()
    torch.testing.assert_close(rest.mean(0), torch.zeros(6).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(rest.square().mean(0), torch.ones(6).double(), atol=1e-6, rtol=0)


def test_power_shuffles_whole_rows_and_every_row_stays(power):
    every = torch.cat(load_benchmark("POWER", power)).double()
    assert (every[:, 5].diff() < 0).any()
    order = every[:, 5].argsort()
    # Time gets no noise: equal steps after sorting mean that every row is there once.
    steps = every[order, 5].diff()
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(every[order], every[every[:, 0].argsort()])


def test_power_noise_is_uniform_with_each_columns_resolution(tmp_path):
    signs = RNG.integers(0, 2, (4000, 8)) * 2000.0
    save_array(tmp_path, "power", signs + 10.0 * np.arange(8))
    every = torch.cat(load_benchmark("POWER", tmp_path)).double()
    low, high = (torch.where(keep, every, torch.nan) for keep in (every < 0, every >= 0))
    gap = high.nanmean(0) - low.nanmean(0)
    top, bottom = low.nan_to_num(-torch.inf).amax(0), low.nan_to_num(torch.inf).amin(0)
    width = (top - bottom) / gap * 2000
    assert width[2:5].tolist() == pytest.approx([1, 1, 1], abs=5e-3)
    assert width[1].item() == pytest.approx(0.01, abs=1e-3)
    assert width[0].item() < 2e-3 and width[5].item() == 0


def test_power_drops_reactive_power_and_intensity(tmp_path):
    rows = RNG.normal(size=(500, 8)) * 100
    rows[:, [1, 3]] = np.nan
    save_array(tmp_path, "power", rows)
    check_types(load_benchmark("POWER", tmp_path))


def test_power_is_repeatable_and_its_generator_decides(power):
    first, again = load_benchmark("POWER", power), load_benchmark("POWER", power)
    other = load_benchmark("POWER", power, generator=torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first.test, other.test)


@pytest.fixture
def gas(tmp_path):
    """Columns a, b independent; c near −a, d near a, e near d: a goes, then d, so that b, c, e
    stay."""
    a, b, small = RNG.normal(size=(3, 2000))
    columns = {"Time": np.arange(2000.0), "Meth": b, "Eth": b, "a": a, "b": b}
    columns |= {"c": -a + 0.01 * small, "d": 5 + a + 0.02 * small, "e": 3 * a - 0.02 * small}
    (tmp_path / "gas").mkdir()
    pd.DataFrame(columns).to_parquet(tmp_path / "gas/ethylene_CO.parquet")
    return tmp_path, columns


def test_gas_keeps_the_last_of_correlated_columns_and_scales_by_all_rows(gas):
    root, columns = gas
    split = load_benchmark("GAS", root)
    check_types(split)
    assert [len(part) for part in split] == [1620, 180, 200]
    expected = pd.DataFrame(columns)[["b", "c", "e"]]
    expected = ((expected - expected.mean()) / expected.std()).to_numpy(np.float32)
    np.testing.assert_allclose(torch.cat(split), expected, atol=1e-5)


def test_gas_does_not_read_a_pickle_but_says_how_to_convert_it(gas):
    root, _ = gas
    path = root / "gas/ethylene_CO.parquet"
    path.rename(path.with_suffix(".pickle"))
    with pytest.raises(
        FileNotFoundError, match=r"pandas\.read_pickle\(.*\.pickle'\)\.to_parquet\(.*\.parquet'\)$"
    ):
        load_benchmark("GAS", root)


def test_gas_names_missing_columns(gas):
    root, columns = gas
    path = root / "gas/ethylene_CO.parquet"
    pd.DataFrame(columns).drop(columns="Meth").to_parquet(path)
    with pytest.raises(ValueError, match=r"GAS: expected Meth in .*parquet, got Time, Eth, a"):
        load_benchmark("GAS", root)


def hepmass_table(rows):
    """A label, a continuous feature, a discrete one, and a continuous one that repeats its largest
    value."""
    table = pd.DataFrame({"# label": np.arange(rows) % 2.0})
    table["f0"] = RNG.normal(3, 2, rows)
    table["f1"] = RNG.integers(0, 3, rows).astype(float)
    table["f2"] = RNG.normal(size=rows).clip(max=1)
    return table


@pytest.fixture
def hepmass(tmp_path):
    (tmp_path / "hepmass").mkdir()
    train, test = hepmass_table(2000), hepmass_table(300).assign(mass=np.nan)
    train.to_csv(tmp_path / "hepmass/1000_train.csv", index=False)
    test.to_csv(tmp_path / "hepmass/1000_test.csv", index=False)
    return tmp_path, train, test


def test_hepmass_keeps_signal_and_continuous_features_scaled_by_training_rows(hepmass):
    root, train, test = hepmass
    split = load_benchmark("HEPMASS", root)
    check_types(split)
    assert [tuple(part.shape) for part in split] == [(900, 2), (100, 2), (150, 2)]
    train, test = (table[table["# label"] == 1][["f0", "f2"]] for table in (train, test))
    mean, scale = train.mean(), train.std()
    np.testing.assert_allclose(torch.cat(split[:2]), (train - mean) / scale, atol=1e-5)
    np.testing.assert_allclose(split.test, (test - mean) / scale, atol=1e-5)


def test_hepmass_names_columns_that_the_test_file_lacks(hepmass):
    root, _, test = hepmass
    test.drop(columns="f2").to_csv(root / "hepmass/1000_test.csv", index=False)
    with pytest.raises(ValueError, match=r"HEPMASS: expected f2 in .*1000_test.csv"):
        load_benchmark("HEPMASS", root)


def test_miniboone_splits_in_order_and_standardizes_by_train_and_valid(tmp_path):
    rows = RNG.gamma(2, 5, (1019, 43))
    save_array(tmp_path, "miniboone", rows)
    split = load_benchmark("MINIBOONE", tmp_path)
    check_types(split)
    assert [len(part) for part in split] == [827, 91, 101]
    seen = rows[:918]
    np.testing.assert_allclose(torch.cat(split), (rows - seen.mean(0)) / seen.std(0), atol=1e-5)


def test_bsds300_is_taken_as_it_is(tmp_path):
    (tmp_path / "BSDS300").mkdir()
    parts = {
        name: RNG.normal(size=(n, 63)).astype("f4")
        for name, n in (("train", 20), ("validation", 5), ("test", 8))
    }
    with h5py.File(tmp_path / "BSDS300/BSDS300.hdf5", "w") as file:
        file.update(parts)
    split = load_benchmark("BSDS300", tmp_path)
    check_types(split)
    for part, expected in zip(split, parts.values()):
        np.testing.assert_array_equal(part, expected)


def test_bsds300_names_missing_data_sets(tmp_path):
    (tmp_path / "BSDS300").mkdir()
    with h5py.File(tmp_path / "BSDS300/BSDS300.hdf5", "w") as file:
        file["train"] = file["test"] = np.zeros((2, 63))
    with pytest.raises(
        ValueError, match=r"BSDS300: expected validation in .*hdf5, got test, train"
    ):
        load_benchmark("BSDS300", tmp_path)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_missing_file_is_named_in_one_line(tmp_path, name):
    with pytest.raises(FileNotFoundError) as raised:
        load_benchmark(name, tmp_path)
    assert str(raised.value) == f"{name}: expected the file {tmp_path / PATHS[name]}"


@pytest.mark.parametrize(("name", "columns"), [("POWER", 8), ("MINIBOONE", 43)])
def test_wrong_number_of_columns_is_named(tmp_path, name, columns):
    save_array(tmp_path, name.lower(), np.zeros((20, 5)))
    with pytest.raises(
        ValueError, match=rf"{name}: expected {columns} columns in .*data.npy, got .*\(20, 5\)"
    ):
        load_benchmark(name, tmp_path)


def test_pickled_arrays_are_refused(tmp_path):
    save_array(tmp_path, "power", np.array([[{}] * 8], dtype=object))
    with pytest.raises(ValueError, match=r"allow_pickle=False"):
        load_benchmark("POWER", tmp_path)


def test_unknown_benchmark_lists_the_names():
    with pytest.raises(
        ValueError, match=r"'power': expected one of POWER, GAS, HEPMASS, MINIBOONE, BSDS300"
    ):
        load_benchmark("power", ".")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("iris", (150, 4)),
        ("wine", (178, 13)),
        ("breast_cancer", (569, 30)),
        ("diabetes", (442, 9)),
    ],
)
def test_bundled_tables_are_continuous_and_named(name, shape):
    table = bundled_table(name)
    assert table.shape == shape
    assert (table.dtypes == "float64").all() and table.notna().all(axis=None)
    assert (table.nunique() > 8).all()
    assert "sex" not in table and "target" not in table


def test_bundled_names():
    assert set(BUNDLED) == {"iris", "wine", "breast_cancer", "diabetes"}
    assert bundled_table("iris").columns[0] == "sepal length (cm)"
    with pytest.raises(ValueError, match="'digits': expected one of iris, wine"):
        bundled_table("digits")
