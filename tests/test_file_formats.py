"""Tables of other programs, and compressed ones: each format says what pandas wrote, and a damaged
file costs one line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import math
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnf
from cnf.tables import TableError, frame_files, read_table, read_typed_chunks, read_typed_table
from cnf.tables.reading import READERS

PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def people(rows: int = 40) -> pd.DataFrame:
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "height": random.normal(1.7, 0.1, rows),
            "children": random.integers(0, 9, rows),
            "group": random.choice(["a", "b b"], rows),
            "born": pd.date_range("1990-03-01", periods=rows, freq="37D"),
        }
    )
    return table.assign(height=table["height"].mask(table.index == 3))


WRITE = {
    "feather": lambda table, path: table.to_feather(path),
    "arrow": lambda table, path: table.to_feather(path, compression="uncompressed"),
    "json": lambda table, path: table.to_json(
        path, orient="records", date_format="iso", double_precision=15
    ),
    "jsonl": lambda table, path: table.to_json(
        path, orient="records", lines=True, date_format="iso", double_precision=15
    ),
    "dta": lambda table, path: table.to_stata(path, write_index=False),
    "xlsx": lambda table, path: table.to_excel(path, index=False),
    "csv.zip": lambda table, path: table.to_csv(path, index=False),
    "csv.xz": lambda table, path: table.to_csv(path, index=False),
    "tsv.bz2": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    "txt": lambda table, path: table.to_csv(path, index=False, sep=" ", na_rep="NA"),
}


@pytest.fixture(params=WRITE)
def file(request, tmp_path):
    path = tmp_path / f"t.{request.param}"
    WRITE[request.param](people(), path)
    return path


def test_a_table_is_the_same_in_every_format(file):
    table, found = people(), read_typed_table(file)
    assert list(found) == list(table)
    assert found["height"].to_numpy() == pytest.approx(table["height"].to_numpy(), nan_ok=True)
    assert found["children"].tolist() == table["children"].tolist()
    assert found["children"].dtype.kind == "i"
    assert found["group"].tolist() == table["group"].tolist()
    assert pd.to_datetime(found["born"]).dt.tz_localize(None).tolist() == table["born"].tolist()
    kinds = [column.kind for column in cnf.Schema.infer(found).columns]
    assert kinds == ["real", "integer", "categorical", "time"]


def test_chunks_are_those_of_the_whole(file, monkeypatch):
    schema = cnf.Schema.infer(read_typed_table(file))
    monkeypatch.setattr("cnf.tables.reading.CHUNK_ROWS", 7)
    parts = list(read_typed_chunks(file, schema))
    whole = pd.concat(parts)
    assert len(whole) == 40 and max(map(len, parts)) <= 40
    assert schema.encode(whole, schema.modeled).states.shape[0] == 40 and whole.index.is_unique


def test_numbers_alone_are_read_and_texts_refused(file):
    numbers = read_table(file, columns=["children", "height"], nonfinite="keep")
    assert numbers.dtypes.tolist() == [np.dtype(float)] * 2 and len(numbers) == 40
    with pytest.raises(TableError, match=r"column 'group'.*expected (a number|numbers)"):
        read_table(file, columns=["group"])


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_half_a_file_is_refused_in_one_line(file, cut):
    content = file.read_bytes()
    file.write_bytes(content[: int(cut * len(content))])
    try:
        table = read_typed_table(file)
    except TableError as error:
        assert str(error).startswith(str(file)) and str(error).isprintable()
    else:  # text that ends early has fewer rows
        assert file.suffix in (".txt", ".jsonl") and len(table) < 40


@pytest.mark.parametrize("packing", PACK)
def test_compressed_lines_of_json_are_unpacked(tmp_path, packing):
    path = tmp_path / f"t.ndjson.{packing}"
    path.write_bytes(PACK[packing](b'{"a": 1, "b": {"c": null}}\n\n{"a": 2, "b": {"c": true}}\n'))
    found = read_typed_table(path)
    assert list(found) == ["a", "b.c"] and found["a"].tolist() == [1, 2]
    assert found["b.c"].dtype == "boolean" and found["b.c"].isna().tolist() == [True, False]


def test_json_of_columns(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"code": ["007", "010"], "n": [1, None]}))
    found = read_typed_table(path)
    assert found["code"].tolist() == ["007", "010"] and str(found["n"].dtype) == "Int64"


@pytest.mark.parametrize(
    "content", ["3", '["a"]', "[1, 2]", '{"a": 1}', "[", "[" * 100_000, '{"a": [1], "b": [1, 2]}']
)
def test_json_that_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(TableError, match="cannot be read as JSON of rows or columns"):
        read_typed_table(path)


CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False), st.text()
)


@given(st.lists(st.fixed_dictionaries({"a": CELLS, "b b": CELLS}), min_size=1, max_size=8))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_json_cells_are_what_they_were(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("json") / "t.json"
    path.write_text(json.dumps(records))
    found = read_typed_table(path)
    for name in ("a", "b b"):
        for cell, record in zip(found[name], records, strict=True):
            if record[name] is None:
                assert pd.isna(cell)
            else:
                assert cell == record[name] or math.isclose(float(cell), float(record[name]))


@pytest.mark.parametrize("names", [[], ["a.csv", "b.csv"]])
def test_an_archive_of_other_than_one_file_is_refused(tmp_path, names):
    path = tmp_path / "t.csv.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "a\n1.5\n")
    with pytest.raises(TableError, match=f"expected one file in the archive, found {len(names)}"):
        read_table(path)


def test_what_a_macintosh_adds_to_an_archive_does_not_count(tmp_path):
    path = tmp_path / "t.csv.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("t.csv", "a\n1.5\n")
        archive.writestr("__MACOSX/._t.csv", b"\0\5")
    assert read_table(path)["a"].tolist() == [1.5]


def test_a_workbook_that_expands_too_far_is_refused(tmp_path, monkeypatch):
    people().to_excel(tmp_path / "t.xlsx", index=False)
    monkeypatch.setattr(frame_files, "MOST_UNPACKED", 1_000)
    with pytest.raises(TableError, match="at most 1,000 bytes unpacked"):
        read_table(tmp_path / "t.xlsx")


def test_a_workbook_without_openpyxl_names_the_extra(tmp_path, monkeypatch):
    people().to_excel(tmp_path / "t.xlsx", index=False)

    def missing(*_, **__):
        raise ImportError("openpyxl")

    monkeypatch.setattr(pd, "read_excel", missing)
    with pytest.raises(TableError, match=r"pip install 'cnf\[excel\]'"):
        read_table(tmp_path / "t.xlsx")


def test_labels_that_two_codes_share_are_left_as_codes(tmp_path):
    path = tmp_path / "t.dta"
    table = pd.DataFrame({"a": pd.Categorical.from_codes([0, 1, 0], ["no", "yes"])})
    table.to_stata(path, write_index=False)
    assert read_typed_table(path)["a"].tolist() == ["no", "yes", "no"]
    path.write_bytes(path.read_bytes().replace(b"no\0yes\0", b"no\0no\0\0"))
    assert read_typed_table(path)["a"].nunique() == 2


def test_spaces_part_cells_in_files_of_text_alone(tmp_path):
    text = "  name   n\n ada    1\n bob    2  \n"
    (tmp_path / "t.dat").write_text(text)
    assert read_typed_table(tmp_path / "t.dat").to_dict("list") == {
        "name": ["ada", "bob"],
        "n": [1, 2],
    }
    (tmp_path / "t.csv").write_text("full name\nada l\nbob m\n")
    assert list(read_typed_table(tmp_path / "t.csv")) == ["full name"]


def test_an_unknown_extension_is_told_which_are_known(tmp_path):
    with pytest.raises(
        TableError, match=r"expected one of \.csv, .*\.npz; \.csv, .* also with \.gz"
    ):
        read_table(tmp_path / "t.ods")
    assert {".csv.bz2", ".json.xz", ".feather", ".dta", ".xlsx"} <= set(READERS)
