"""Tables that cannot be used are refused in one clear sentence that names the column and the row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tables_toys import TINY, fitted, made

import ancestral
from ancestral.data import read
from ancestral.errors import DataError

QUICK = dict(recipe="any-order", steps=2, quiet=True, **TINY)


def frame(**changes) -> pd.DataFrame:
    return made(20).assign(**changes)


refused = {
    "duplicated names in fit": (
        lambda: ancestral.fit(pd.DataFrame([[1, 2]], columns=["a", "a"])),
        "two columns named 'a'; rename one",
    ),
    "duplicated names in scoring": (
        lambda: fitted().log_prob(pd.concat([frame(), frame()[["size"]]], axis=1)),
        "two columns named 'size'; rename one",
    ),
    "names that become one": (
        lambda: ancestral.fit(pd.DataFrame([[1, 2]], columns=["1", 1])),
        "two columns named '1'",
    ),
    "a missing column": (lambda: fitted().log_prob(frame().drop(columns="size")), "has no column 'size', which the"),
    "an extra column": (lambda: fitted().log_prob(frame(extra=1)), "knows no column 'extra'; remove it"),
    "a missing column to complete": (lambda: fitted().complete(frame().drop(columns="wide")), "has no column 'wide'"),
    "an extra column to compress": (lambda: fitted().compress(frame(extra=1)), "knows no column 'extra'"),
    "words for integers": (lambda: fitted().log_prob(frame(size="big")), "'size' holds 'big' in row 0 .* integer"),
    "words for decimals": (
        lambda: fitted().log_prob(frame(wide=[None, "broad"] * 10)),
        "'wide' holds 'broad' in row 1 where the model knows decimal values such as",
    ),
    "lists in cells": (
        lambda: ancestral.fit(frame(size=[[1, 2]] * 20)),
        "column 'size' holds a list in row 0; turn it into columns of plain values",
    ),
    "numbers for dates": (lambda: fitted().log_prob(frame(when=3)), "'when' holds '3' in row 0 .* date values"),
    "numbers for words": (lambda: fitted().log_prob(frame(colour=7.5)), "'colour' holds '7.5' in row 0 .* categorical"),
    "words to predict from": (lambda: fitted().predict(frame(size="big"), "label"), "'size' holds 'big' in row 0"),
    "several types": (
        lambda: ancestral.fit(pd.DataFrame({"a": [1, 2, "x"]}, dtype=object)),
        r"column 'a' holds values of several types \(int, and in row 2 str\)",
    ),
    "objects": (
        lambda: ancestral.fit(pd.DataFrame({"a": [1j, 2j]})),
        "column 'a' holds values of type complex; turn it into one plain type",
    ),
    "a column for a table": (
        lambda: fitted().log_prob(frame()["size"]),
        "cannot be read from a Series, which has no named columns; .*to_frame",
    ),
    "no rows in fit": (lambda: ancestral.fit(made(20)[:0]), "no rows; it needs at least one"),
    "no rows in scoring": (lambda: fitted().log_prob(made(20)[:0]), "no rows; it needs at least one"),
    "no columns": (lambda: ancestral.fit(pd.DataFrame(index=range(3))), "no columns; give at least one"),
    "a given word never seen": (
        lambda: fitted().sample(1, given={"colour": "mauve"}),
        "'colour' has no value 'mauve'; it takes .*'red'",
    ),
    "a given number out of range": (lambda: fitted().sample(1, given={"size": 44}), "'size' has no value 44; it takes"),
    "a given column unknown": (
        lambda: fitted().sample(1, given={"weight": 1}),
        "no column 'weight'; there are 'colour', 'size'",
    ),
    "given no dict": (lambda: fitted().sample(1, given=["red"]), "given= is a list; for a table give a dict"),
}


@pytest.mark.parametrize("case", refused)
def test_refused_in_one_clear_sentence(case):
    ask, said = refused[case]
    with pytest.raises(DataError, match=said) as caught:
        ask()
    assert "\n" not in str(caught.value)


def test_single_odd_cells_are_values_like_others():
    odd = frame()
    odd["size"] = odd["size"].astype(str)
    odd.loc[3, "size"] = "big"
    scores = fitted().log_prob(odd)
    assert np.isfinite(scores).all()
    same = np.arange(20) != 3
    assert np.allclose(scores[same], fitted().log_prob(frame())[same])
    assert fitted().decompress(fitted().compress(odd))["size"].tolist() == odd["size"].tolist()
    far = frame(size=[10**9, *range(19)], colour=["mauve", *["red"] * 19])
    back = fitted().decompress(fitted().compress(far))
    assert back["size"].tolist() == far["size"].tolist() and back["colour"].tolist() == far["colour"].tolist()


def test_a_table_of_one_row_is_a_table():
    one = made(1)
    model = ancestral.fit(one, **QUICK)
    assert np.isfinite(model.log_prob(one)).all()
    assert model.sample(3).shape == (3, 5)
    assert model.predict(one, "label").tolist() == one["label"].tolist()
    pd.testing.assert_frame_equal(model.decompress(model.compress(one)), one)


def test_constant_and_empty_columns_are_no_mistake():
    data = made(30).assign(same="x", none=np.nan)
    model = ancestral.fit(data, **QUICK)
    assert set(model.sample(5)["same"]) == {"x"} and model.sample(5)["none"].isna().all()
    assert model.predict(data, "same").tolist() == ["x"] * 30
    with pytest.raises(DataError, match="'none' has no values but missing ones"):
        model.predict(data, "none")
    assert read(data).columns == list(data.columns)


def test_a_csv_with_a_name_twice_or_words_for_numbers(tmp_path):
    (tmp_path / "good.csv").write_text("age,sex\n" + "20,F\n35,M\n41,F\n" * 9)
    model = ancestral.fit(tmp_path / "good.csv", **QUICK)
    (tmp_path / "twice.csv").write_text("age,sex,age\n20,F,20\n")
    for verb in (lambda path: ancestral.fit(path, **QUICK), model.log_prob):
        with pytest.raises(DataError, match=r"twice\.csv has two columns named 'age'; rename one"):
            verb(tmp_path / "twice.csv")
    (tmp_path / "words.csv").write_text("age,sex\n,F\nold,M\n")
    with pytest.raises(DataError, match="column 'age' holds 'old' in row 1 where the model knows integer"):
        model.log_prob(tmp_path / "words.csv")
    # Single odd cells are values, and any csv is compressed.
    (tmp_path / "one.csv").write_text("age,sex\n20,F\nold,M\n")
    assert np.isfinite(np.asarray(model.log_prob(tmp_path / "one.csv"))).all()
    assert model.decompress(model.compress(tmp_path / "words.csv"))["age"].tolist()[1] == "old"


def test_a_first_row_of_repeated_words_without_numbers_is_data(tmp_path):
    (tmp_path / "grid.csv").write_text("x,o,x\no,x,x\nx,x,o\n")
    assert len(read(tmp_path / "grid.csv")) == 3
