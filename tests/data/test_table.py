"""Tables: cells come back exactly from csv, parquet and frames, and bad input is one clear sentence."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ancestral.data import Table, read, sniff, write
from ancestral.data.cells import from_cells, to_cells
from ancestral.errors import DataError

few = settings(max_examples=40, deadline=None)
cell = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@few
@given(st.integers(1, 4).flatmap(lambda w: st.lists(st.lists(cell, min_size=w, max_size=w), min_size=1, max_size=6)))
@example([["a\rb", "c"]])
def test_csv_cells_come_back(rows):
    names = [f"name {i}" for i in range(len(rows[0]))]
    frame = pd.DataFrame(np.array(rows, dtype=object), columns=names, dtype=object)
    data = Table(frame, kind="csv")
    with tempfile.TemporaryDirectory() as place:
        for name in ("x.csv", "x.tsv", "x.csv.gz"):
            write(data, Path(place) / name)
            separator = "\t" if "tsv" in name else ","
            back = read(Path(place) / name, header=True, separator=separator)
            assert back.frame.values.tolist() == rows
            assert back.columns == names


frames = [
    pd.DataFrame({"a": [1, 2, -3], "b": [0.1, np.nan, 1e-300], "c": ["x", None, "é"]}),
    pd.DataFrame({"a": pd.Series([1.5, -0.0, 3], dtype="float32"), "b": pd.Series([1, None, 3], dtype="Int64")}),
    pd.DataFrame({"a": [True, False, True], "b": pd.Series([True, None, False], dtype="boolean")}),
    pd.DataFrame({"a": pd.to_datetime(["2020-01-01", None, "2021-05-06 07:08:09.123456"], format="ISO8601")}),
    pd.DataFrame(
        {"a": pd.to_datetime(["2020-01-01", "2020-07-01 12:00"], format="ISO8601").tz_localize("Europe/Oslo")}
    ),
    pd.DataFrame({"a": pd.Categorical(["u", None, "v"], categories=["v", "w", "u"], ordered=True)}),
    pd.DataFrame({"a": pd.Categorical([3, 1, 3])}),
    pd.DataFrame({"a": pd.to_timedelta(["1 days", None, "00:00:01"])}),
    pd.DataFrame({"a": pd.Series(["x", None], dtype=object), "b": pd.Series([True, False], dtype=object)}),
    pd.DataFrame({"a": pd.Series([0.5, None, -0.0], dtype="Float64"), "b": pd.Series([0.0, -0.0, 1.5], dtype=object)}),
    pd.DataFrame({"a": pd.Series([255, 0], dtype="uint8"), "b": pd.Series([np.nan, np.nan])}),
    pd.DataFrame({"a": pd.Series([1, 2**63 + 5, 2**64 - 1], dtype="uint64"), "b": [-(2**63), 0, 2**63 - 1]}),
]


@pytest.mark.parametrize("frame", frames, ids=range(len(frames)))
def test_typed_columns_come_back_from_their_cells(frame):
    for name in frame.columns:
        cells, spec = to_cells(frame[name], name)
        assert all(c is None or isinstance(c, str) for c in cells)
        pd.testing.assert_series_equal(from_cells(cells, spec), frame[name], check_names=False)


@few
@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=10))
def test_floats_come_back_bit_for_bit(values):
    series = pd.Series(values)
    cells, spec = to_cells(series, "x")
    assert from_cells(cells, spec).to_numpy().tobytes() == series.to_numpy().tobytes()


@pytest.mark.parametrize("frame", frames[:4], ids=range(4))
def test_parquet_comes_back(tmp_path, frame):
    write(read(frame), tmp_path / "x.parquet")
    assert sniff(tmp_path / "x.parquet") == "table"
    pd.testing.assert_frame_equal(read(tmp_path / "x.parquet").native(), frame)


def test_native_kinds():
    frame = frames[0]
    assert read(frame).native().equals(frame)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    assert read(table).native().to_pandas().equals(frame)
    assert read({"a": [1, 2]}, modality="table").columns == ["a"]
    assert read(np.zeros((2, 2)), modality="table").columns == ["column_1", "column_2"]


def test_csv_native_is_what_pandas_reads(tmp_path):
    text = "a,b\n1,x\n,\n"
    (tmp_path / "x.csv").write_text(text)
    data = read(tmp_path / "x.csv")
    assert data.frame.values.tolist() == [["1", "x"], ["", ""]]
    pd.testing.assert_frame_equal(data.native(), pd.read_csv(io.StringIO(text)))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_and_header_are_found(tmp_path, separator):
    rows = [["name", "age"], ["a, b; c", "3"], ["d|e", "4"]]
    out = io.StringIO()
    csv.writer(out, delimiter=separator).writerows(rows)
    (tmp_path / "x.csv").write_text(out.getvalue())
    data = read(tmp_path / "x.csv")
    assert data.separator == separator and data.columns == ["name", "age"] and len(data) == 2
    (tmp_path / "y.csv").write_text("a,3\nb,4\n")
    assert read(tmp_path / "y.csv").columns == ["column_1", "column_2"]
    assert read(tmp_path / "y.csv", columns=["p", "q"]).columns == ["p", "q"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,b\n1,2\n3\n", "line 3 .* 1 cells where the first row has 2"),
        (b"a,b\n1,2\n3,4,5\n", "line 3 .* 3 cells"),
        (b"a,a\n1,x\n", "two columns named 'a'|x"),
        (b"", "empty table"),
        (b"a,b\n", "no rows"),
        (b"a,b\nx,\xff\n", "0xff at offset 6.*encoding="),
        (b'a,b\n1,2\n3,"4\n5,6\n', "line 3 of .* is no csv .a quote opens there and never closes"),
        (b'a,b\n1,2\n3,"4', "line 3 of .*a quote opens there"),
    ],
)
def test_bad_csv_is_one_clear_sentence(tmp_path, content, said):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path / "x.csv", header=True)
    assert "\n" not in str(caught.value)


def test_other_bad_tables(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    (tmp_path / "x.csv.gz").write_bytes(b"no gzip")
    bad = [
        (tmp_path / "x.parquet", "not a readable parquet"),
        (tmp_path / "x.csv.gz", "damaged gzip"),
        (pd.DataFrame({"a": []}), "no rows"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns named 'a'"),
    ]
    for source, said in bad:
        with pytest.raises(DataError, match=said):
            read(source)
    with pytest.raises(DataError, match="column 'a' holds values of several types"):
        read(pd.DataFrame({"a": pd.Series([1, "x"], dtype=object)})).cells("a")
    with pytest.raises(DataError, match="suffix"):
        write(read(frames[0]), tmp_path / "x.xlsx")
    assert (tmp_path / "x.csv.gz").read_bytes() == b"no gzip"


def test_latin_1_is_read_when_named(tmp_path):
    (tmp_path / "x.csv").write_bytes("a,b\nné,1\n".encode("latin-1"))
    assert read(tmp_path / "x.csv", encoding="latin-1").frame["a"].tolist() == ["né"]


def test_codes_make_the_table_that_their_cells_make() -> None:
    codes = np.array([2, 0, 2, 1, 0])
    coded = {
        "number": (codes, np.array(["1", "2.50", None, "odd"], dtype=object)),  # "odd" does not occur
        "word": (codes, np.array(["a", "a", "", "b"], dtype=object)),
    }
    schema = {name: {"dtype": "csv"} for name in coded}
    one = Table.from_codes(coded, schema, "csv")
    other = Table.from_cells({name: cells[at] for name, (at, cells) in coded.items()}, schema, "csv")
    for a, b in (
        (one, other),
        (one.with_form(one.form), other.with_form(other.form)),
        (one.take([4, 0]), other.take([4, 0])),
    ):
        assert all((a.cells(name) == b.cells(name)).all() for name in coded)
        assert a.native().equals(b.native())
    assert str(one.native()["number"].dtype) == "float64"
