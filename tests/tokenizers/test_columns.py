"""Columns: every cell comes back exactly, known or not, and wide columns stay small."""

from __future__ import annotations

import gzip
import json
import random

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ancestral.data import Table, read
from ancestral.errors import DataError, StreamError
from ancestral.tokenizers import Columns, Tokenizer
from ancestral.tokenizers.codecs import fit_codec
from ancestral.tokenizers.formats import DateFormat, DecimalFormat, FloatFormat, ScientificFormat

few = settings(max_examples=50, deadline=None)
odd = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
number = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.decimals(-1000, 1000, places=2).map(str),
    st.sampled_from(["", "?", "007", "+5", "-0", "-0.0", "1e5", "1,200", " 3", "12 ", "NaN", "99999999999999999999"]),
)
date = st.one_of(st.dates().map(str), st.datetimes().map(str), st.just(""))
column = st.one_of(*(st.lists(one, min_size=1, max_size=30) for one in (odd, number, date, st.one_of(odd, number))))


def table(**columns) -> Table:
    """A table as read from csv."""
    return Table(pd.DataFrame({k: pd.Series(v, dtype=object) for k, v in columns.items()}), kind="csv")


def check(tokenizer: Columns, data: Table) -> bytes:
    """Encode and decode exactly, also after a trip through JSON; returns the escapes."""
    values, escapes = tokenizer.encode_with_escapes(data)
    assert values.dtype == torch.int64 and values.shape == (len(data), tokenizer.space.n)
    assert (values >= 0).all() and (values < tokenizer.space.site_sizes()).all()
    assert tokenizer.space.largest <= 256
    again = Tokenizer.from_state(json.loads(json.dumps(tokenizer.state())))
    assert isinstance(again, Columns) and again.state() == tokenizer.state() and again.space == tokenizer.space
    assert (again.encode_with_escapes(data)[0] == values).all()
    assert again.decode(values, escapes).frame.equals(data.frame)
    return escapes


@few
@given(column, column)
@example([""], ["x"])
@example(["-1e+300", "1e+300"] * 3, ["5.0", "-5.0"])
@example(["1.5", "-1.5", "0.0", "-0.0"] * 3, ["1e400", "nan"])
def test_every_cell_comes_back_also_those_never_seen(seen, unseen):
    tokenizer = Columns(bins=4).fit(table(x=seen))
    check(tokenizer, table(x=seen))
    check(tokenizer, table(x=unseen))


reals = st.sampled_from([32, 64]).flatmap(
    lambda width: st.tuples(st.just(f"float{width}"), st.lists(st.floats(width=width), min_size=1, max_size=60))
)


@few
@given(reals)
@example(("float32", [0.0, -0.0]))
@example(("float16", [0.1, float("inf")]))
def test_typed_floats_come_back_bit_for_bit(content):
    dtype, values = content
    frame = pd.DataFrame({"x": np.array(values, dtype=dtype)})
    tokenizer = Columns().fit(read(frame))
    back = tokenizer.decode(*tokenizer.encode_with_escapes(read(frame))).native()["x"].to_numpy()
    original = frame["x"].to_numpy()
    assert back.dtype == original.dtype
    missing = np.isnan(original)
    assert (np.isnan(back) == missing).all() and back[~missing].tobytes() == original[~missing].tobytes()


@few
@given(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20),
    st.sampled_from([0, 1, 2, 5]),
    st.integers(0, 2),
)
def test_the_law_of_formats(numbers, places, least):
    numbers = np.array(numbers, dtype=np.int64)
    small = numbers % 10**12 * np.sign(numbers)
    for form, some in (
        (DecimalFormat(places, min(least, places), 1, "$", "%"), small),
        (FloatFormat(), np.clip(numbers, -(2**61), 2**61)),
        (DateFormat("%Y-%m-%d", "D"), numbers % 40_000),
        (DateFormat("%d/%m/%Y %H:%M", "s"), numbers % 10**9 // 60 * 60),
        (DateFormat("iso", "us"), numbers % 10**15),
        (DateFormat("%Y-%m-%dT%H:%M:%S.%3fZ", "ms"), numbers % 10**13),
        (ScientificFormat(3, "E"), small // 10**6),
        (ScientificFormat(14), small),
        (ScientificFormat(18), np.clip(numbers, -(2**61), 2**61)),
    ):
        back, good = form.parse(form.write(some).tolist())
        assert good.all() and (back == some).all()


def test_kinds():
    rng = random.Random(0)
    n = 600
    data = table(
        constant=["a"] * n,
        missing=[""] * n,
        boolean=[rng.choice(["True", "False", ""]) for _ in range(n)],
        categorical=[rng.choice("abc") for _ in range(n)],
        integer=[str(rng.randint(0, 10**6)) for _ in range(n)],
        decimal=[f"{rng.gauss(0, 50):.2f}" for _ in range(n)],
        money=[f"${rng.expovariate(0.01):.2f}" for _ in range(n)],
        float=[repr(rng.gauss(0, 1)) for _ in range(n)],
        date=[str(np.datetime64("2019-01-01") + rng.randint(0, 900)) for _ in range(n)],
        datetime=[str(np.datetime64("2019-01-01T00:00:00") + rng.randint(0, 10**8)) for _ in range(n)],
        european=[f"{rng.randint(1, 28):02d}/{rng.randint(1, 12):02d}/{rng.randint(1950, 2020)}" for _ in range(n)],
        text=["".join(rng.choices("abcdefghij ", k=12)) for _ in range(n)],
        zip=[f"{rng.randint(0, 99999):05d}" for _ in range(n)],
    )
    tokenizer = Columns().fit(data)
    expected = {name: name for name in data.columns}
    expected |= {"money": "decimal", "european": "date", "zip": "integer"}
    assert tokenizer.kinds == expected
    assert check(tokenizer, data) == b""
    assert tokenizer.site_names[tokenizer.columns["integer"].start + 1] == "integer.1"
    assert sum(s.stop - s.start for s in tokenizer.columns.values()) == tokenizer.space.n


def test_an_exponent_with_trailing_zeros_is_written_as_it_stands():
    rng = np.random.default_rng(0)
    cells = [f"{x:.3e}" for x in rng.normal(size=3000) * 1e-8]
    assert sum("0e" in c for c in cells) > 200
    tokenizer = Columns().fit(table(x=cells[:2000]))
    low, high = min(cells[:2000], key=float), max(cells[:2000], key=float)
    fresh = [c for c in cells[2000:] if float(low) < float(c) < float(high)]
    values, escapes = tokenizer.encode_with_escapes(table(x=fresh))
    assert escapes == b"" and tokenizer.decode(values).cells("x").tolist() == fresh


def test_numbers_between_the_extremes_need_no_escape():
    tokenizer = Columns().fit(table(x=[str(i * i * 7) for i in range(500)]))
    assert check(tokenizer, table(x=[str(i) for i in range(0, 499 * 499 * 7, 997)])) == b""
    assert check(tokenizer, table(x=["-1", "9999999999"])) != b""


def test_any_symbols_decode_to_cells_in_range():
    tokenizer = Columns().fit(table(x=[str(i * i * 7) for i in range(500)], y=[f"w{i % 400}w" for i in range(500)]))
    sizes = tokenizer.space.site_sizes()
    values = (torch.rand(2000, len(sizes), generator=torch.Generator().manual_seed(0)) * sizes).long()
    frame = tokenizer.decode(values).frame
    assert frame["x"].astype(int).between(0, 499 * 499 * 7).all()
    assert set(frame["y"]) <= {f"w{i}w" for i in range(400)}
    with pytest.raises(DataError, match="outside the sizes"):
        tokenizer.decode(values + 1000)


def test_a_hundred_thousand_words_stay_small():
    words = [f"item-{i}-x{i % 7}" for i in range(100_000)]
    data = table(x=words)
    tokenizer = Columns().fit(data)
    assert tokenizer.space.n <= 3 and tokenizer.space.largest <= 256
    values = tokenizer.encode(data)
    assert len(torch.unique(values, dim=0)) == 100_000
    assert tokenizer.decode(values).frame.equals(data.frame)


@pytest.mark.parametrize("count", [1, 2, 254, 255, 256, 257, 255**2, 255**2 + 1])
def test_vocabularies_at_the_edges(count):
    codec = fit_codec([f"w{i}w{i}" for i in range(count)], np.ones(count, dtype=np.int64), 8, "csv")
    symbols = codec.encode([f"w{i}w{i}" for i in range(count)] + ["other"])
    assert max(codec.sizes) <= 256 and (symbols < np.array(codec.sizes)).all()
    assert codec.decode(symbols[:-1]).tolist() == [f"w{i}w{i}" for i in range(count)]
    assert (symbols[:, 0] == codec.escape).nonzero()[0].tolist() == [count]


def test_conditioning_takes_values_written_in_other_ways():
    rows = {
        "sex": [" Female", " Male"] * 40,
        "age": [str(i) for i in range(80)],
        "rate": ["1.50", "2.25"] * 40,
    }
    tokenizer = Columns().fit(table(**rows))
    values, known = tokenizer.given({"sex": "female", "age": 39.0, "rate": 1.5})
    full = tokenizer.encode(table(sex=[" Female"], age=["39"], rate=["1.50"]))[0]
    assert known.all() and values.tolist() == full.tolist()
    values, known = tokenizer.given({"age": 7})
    assert known.nonzero().flatten().tolist() == list(range(80))[tokenizer.columns["age"]]
    with pytest.raises(DataError, match="column 'sex' has no value 'x'; it takes ' Female', ' Male'"):
        tokenizer.given({"sex": "x"})
    with pytest.raises(DataError, match="column 'age' has no value 200; it takes 0 to 79"):
        tokenizer.given({"age": 200})
    with pytest.raises(DataError, match="no column 'agr'"):
        tokenizer.given({"agr": 2})


def test_gaps_are_not_known_and_completion_keeps_escaped_cells():
    frame = pd.DataFrame({"a": list(range(90)), "b": ["x", "y", "z"] * 30})
    tokenizer = Columns().fit(read(frame))
    # A gap turns pandas' integers into floats; they are the same cells all the same.
    gaps = read(pd.DataFrame({"a": [5, np.nan, 7], "b": ["x", "new", None]}))
    known = tokenizer.known(gaps)
    assert known[:, tokenizer.columns["a"]].all(1).tolist() == [True, False, True]
    assert known[:, tokenizer.columns["b"]].all(1).tolist() == [True, True, False]
    values = torch.where(known, tokenizer.encode(gaps), tokenizer.encode(read(frame))[:3])
    done = tokenizer.decode_given(values, gaps).native()
    assert done.values.tolist() == [[5, "x"], [1, "new"], [7, "z"]]


def test_foreign_tables_and_streams_are_refused():
    tokenizer = Columns().fit(table(a=["1", "2"], b=["x", "y"]))
    assert (tokenizer.encode(table(b=["x"], a=["1"])) == tokenizer.encode(table(a=["1"], b=["x"]))).all()
    with pytest.raises(DataError, match="no column 'b'"):
        tokenizer.encode(table(a=["1"]))
    with pytest.raises(DataError, match="knows no column 'c'"):
        tokenizer.encode(table(a=["1"], b=["x"], c=["1"]))
    values, escapes = tokenizer.encode_with_escapes(table(a=["1", "7"], b=["new", "x"]))
    for bad in (escapes[:-3], b"junk", tokenizer.encode_with_escapes(table(a=["1"], b=["one"]))[1]):
        with pytest.raises(StreamError):
            tokenizer.decode(values, bad)


def test_frames_come_back_typed():
    frame = pd.DataFrame(
        {
            "i": [1, 2, 3] * 9,
            "f": np.linspace(0, 1, 27),
            "t": pd.date_range("2020-01-01", periods=27, freq="13h"),
            "c": pd.Categorical(["u", "v", None] * 9),
            "s": ["x", None, "y"] * 9,
            "b": [True, False, True] * 9,
        }
    )
    tokenizer = Columns().fit(read(frame))
    assert tokenizer.kinds["t"] == "datetime"
    again = Tokenizer.from_state(json.loads(json.dumps(tokenizer.state())))
    pd.testing.assert_frame_equal(again.decode(tokenizer.encode(read(frame))).native(), frame)


def test_adult_comes_back_cell_for_cell(shared, tmp_path):
    (tmp_path / "train.csv").write_bytes(gzip.decompress(shared("data/adult/adult.data.gz").read_bytes()))
    train = read(tmp_path / "train.csv")
    assert len(train) == 32_561 and not train.header
    tokenizer = Columns().fit(train)
    assert check(tokenizer, train) == b""
    test = read(shared("data/adult/adult.test.gz"), modality="table")
    check(tokenizer, test)


def test_airbnb_comes_back_cell_for_cell(shared):
    data = read(shared("data/airbnb_nyc/airbnb.csv.gz"))
    tokenizer = Columns().fit(data.take(slice(0, 40_000)))
    assert tokenizer.kinds["last_review"] == "date" and tokenizer.kinds["latitude"] == "decimal"
    check(tokenizer, data.take(slice(0, 40_000)))
    check(tokenizer, data.take(slice(40_000, None)))


def test_completion_keeps_the_form_of_what_was_given():
    tokenizer = Columns().fit(read(pd.DataFrame({"a": [0.5, 1.5, 2.0] * 20, "k": [1, 2, 3] * 20})))
    csv = table(a=["0.50", "", "7.25"], k=["03", "2", ""])
    drawn = torch.where(tokenizer.known(csv), tokenizer.encode(csv), tokenizer.encode(csv)[[0, 0, 1]])
    done = tokenizer.decode_given(drawn, csv)
    assert done.kind == "csv"
    assert done.frame.values.tolist() == [["0.50", "03"], ["0.5", "2"], ["7.25", "2"]]
    hidden = torch.zeros_like(tokenizer.known(csv))  # what is not marked as known may not come back
    assert tokenizer.decode_given(tokenizer.encode(csv), csv, hidden).cells("a")[2] != "7.25"


def test_completion_restores_whole_numbers_that_gaps_had_widened():
    tokenizer = Columns().fit(read(pd.DataFrame({"k": [1, 2, 3] * 20, "s": ["x", "y", "z"] * 20})))
    gaps = read(pd.DataFrame({"k": [3.0, np.nan], "s": pd.Categorical(["x", None])}))
    full = read(pd.DataFrame({"k": [3, 2], "s": ["x", "z"]}))
    done = tokenizer.decode_given(tokenizer.encode(full), gaps).native()
    assert done["k"].dtype == "int64" and done["k"].tolist() == [3, 2]
    assert done["s"].tolist() == ["x", "z"]  # although the categories given hold no z


words = st.text("01.59-ae", max_size=4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=8), st.booleans())
def test_exact_codes_do_not_depend_on_the_form_of_the_training_data(rows, swapped):
    frame = pd.DataFrame({"a": [0.5, 1.5, None] * 20, "k": [1, 2, 3] * 20})
    a, k = [r[0] for r in rows], [r[1] for r in rows]
    csv = table(k=k, a=a) if swapped else table(a=a, k=k)
    tokenizer = Columns().fit(read(frame))
    back = tokenizer.decode_exact(*tokenizer.encode_exact(csv))
    assert back.columns == csv.columns and back.frame.values.tolist() == csv.frame.values.tolist()
    typed = read(frame.assign(a=frame["a"].astype("float32"), k=[4, None, 6] * 20))
    strings = Columns().fit(table(a=[*a, "1"], k=[*k, "2"]))
    again = strings.decode_exact(*strings.encode_exact(typed)).with_form(typed.form).native()
    pd.testing.assert_frame_equal(again, typed.native())


DAYS = pd.Timestamp("2021-01-01") + pd.to_timedelta(np.arange(400) * 37, unit="h")
AMOUNTS = np.random.default_rng(0).lognormal(6, 2, 400)


@pytest.mark.parametrize(
    ("kind", "cells"),
    [
        ("datetime", [d.strftime("%m/%d/%Y %I:%M %p") for d in DAYS]),
        ("date", [d.strftime("%d-%b-%y") for d in DAYS]),
        ("date", [d.strftime("%B %d, %Y") for d in DAYS]),
        ("date", [f"{d.month}/{d.day}/{d.year}" for d in DAYS]),
        ("datetime", [f"{d.month}/{d.day}/{d.year} {d.hour}:{d.minute:02}" for d in DAYS]),
        ("datetime", [d.isoformat(timespec="milliseconds") + "Z" for d in DAYS + pd.Timedelta(7, unit="ms")]),
        ("datetime", [str(d.tz_localize("UTC")) for d in DAYS]),
        ("float", [f"{x - 400:.3e}" for x in AMOUNTS]),
        ("float", [f"{x:.18e}" for x in AMOUNTS]),
        ("integer", [str(2**61 + 10**12 * i) for i in range(-200, 200)]),
        ("decimal", [f"${x:,.2f}" for x in AMOUNTS]),
        ("decimal", [f"{x:.2f}".replace(".", ",") for x in AMOUNTS]),
        ("decimal", [f"{x:,.1f}".translate(str.maketrans(",.", ".,")) for x in AMOUNTS]),
        ("integer", [f"{int(x):,}" for x in AMOUNTS]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_dates_and_numbers_as_people_write_them(kind, cells):
    table = Table(pd.DataFrame({"x": cells}, dtype=object), kind="csv")
    columns = Columns.from_state(json.loads(json.dumps(Columns(lists=True).fit(table).state())))
    assert columns.kinds == {"x": kind}
    values, escapes = columns.encode_with_escapes(table)
    assert escapes == b"" and columns.decode(values).frame["x"].tolist() == cells
