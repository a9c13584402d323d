"""Measures of synthetic tables on tables whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral.errors import DataError, UnsupportedError
from ancestral.evaluation import tables
from ancestral.scores import LogProb


def people(n: int, seed: int = 0) -> pd.DataFrame:
    """Words, a number with gaps that depends on them, a date and a class, all tied together."""
    rng = np.random.default_rng(seed)
    town = rng.choice(["Oslo", "Rome", "Lima"], n, p=[0.5, 0.3, 0.2])
    height = np.select([town == "Oslo", town == "Rome"], [10.0, 20.0], 30.0) + rng.normal(0, 1, n).round(2)
    date = pd.Timestamp("2020-01-01") + pd.to_timedelta((height * 10).astype(int), unit="D")
    frame = pd.DataFrame({"town": town, "height": height, "day": date.strftime("%Y-%m-%d")})
    frame["tall"] = np.where(height + rng.normal(0, 3, n) > 18, "yes", "no")
    frame.loc[rng.random(n) < 0.1, "height"] = np.nan
    return frame


def shuffled(frame: pd.DataFrame) -> pd.DataFrame:
    """The same columns with no dependence between them."""
    rng = np.random.default_rng(7)
    return pd.DataFrame({c: frame[c].to_numpy()[rng.permutation(len(frame))] for c in frame})


def test_kinds_are_read_from_words_and_types_alike():
    frame = people(50)
    as_words = frame.astype(object).where(frame.notna(), "").astype(str)
    expected = {"town": "words", "height": "number", "day": "date", "tall": "words"}
    assert tables.kinds(frame) == tables.kinds(as_words) == expected
    assert tables.kinds(pd.DataFrame({"a": [True, False], "b": ["", ""]})) == {"a": "words", "b": "words"}
    assert tables.numbers(pd.Series(["1970-01-03", "", "x"]), "date").tolist()[0] == 2
    assert np.isnan(tables.numbers(pd.Series(["1.5", "", "x"]))).tolist() == [False, True, True]
    assert tables.guess_target(frame) == "tall"


def test_marginals_know_how_far_apart_two_columns_are():
    a = pd.DataFrame({"w": list("aabb"), "x": [0.0, 1, 2, 3], "gap": [1.0, 2, np.nan, np.nan]})
    b = pd.DataFrame({"w": list("aaab"), "x": [2.0, 3, 4, 5], "gap": [1.0, 2, 1, 2]})
    assert tables.marginals(a, b) == pytest.approx({"w": 0.25, "x": 0.5, "gap": 0.5})
    assert set(tables.marginals(a, a).values()) == {0.0}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_smirnov_is_the_largest_gap_between_distribution_functions(first, second):
    frames = [pd.DataFrame({"x": np.array(v, float)}) for v in (first, second)]
    brute = max(abs(np.mean(np.array(first) <= t) - np.mean(np.array(second) <= t)) for t in range(6))
    assert tables.marginals(*frames)["x"] == pytest.approx(brute)


def test_pairs_find_a_dependence_that_is_lost():
    real = people(2000)
    kept, lost = tables.pairs(real, people(2000, 1)), tables.pairs(real, shuffled(real))
    i, j = kept.names.index("town"), kept.names.index("height")
    assert kept.distance[i, j] < 0.1 < 0.5 < lost.distance[i, j]
    assert kept.real[i, j] > 0.9 and lost.synthetic[i, j] < 0.1
    assert set(lost.worst(1)[0][:2]) <= {"town", "height", "day"} and lost.worst(3)[0][2] >= lost.worst(3)[2][2]
    assert np.allclose(np.diag(lost.distance), 0, atol=1e-12)  # the columns themselves are the same


def test_two_sample_auc_is_a_half_for_real_rows_and_one_for_independent_columns():
    pytest.importorskip("sklearn")
    real = people(800)
    assert abs(tables.two_sample_auc(real, people(800, 1)) - 0.5) < 0.06
    assert tables.two_sample_auc(real, shuffled(real)) > 0.95
    with pytest.raises(DataError, match="no column 'day'"):
        tables.two_sample_auc(real, real.drop(columns="day"))
    with pytest.raises(DataError, match="folds"):
        tables.two_sample_auc(real.head(3), real)


def test_usefulness_is_lost_with_the_dependence():
    pytest.importorskip("sklearn")
    real, test = people(800), people(400, 1)
    assert tables.usefulness(real, test, "tall") > 0.85
    assert abs(tables.usefulness(shuffled(real), test, "tall") - 0.5) < 0.15
    assert tables.usefulness(real, test, "height") > 0.9 > 0.2 > tables.usefulness(shuffled(real), test, "height")
    assert tables.usefulness(real.assign(tall="yes"), test, "tall") == 0.5
    assert tables.usefulness(real[real.town != "Lima"], test, "town") > 0.6  # a class that training lacks
    with pytest.raises(DataError, match="no column 'size'"):
        tables.usefulness(real, test, "size")


def test_copies_are_found_however_their_numbers_are_written():
    real = people(60)
    written = real.assign(height=real.height.map(lambda x: "" if x != x else f"{x:.4f}"))
    assert tables.copy_share(written, real) == 1
    assert tables.copy_share(people(60, 1), real) < 0.2
    assert tables.copy_share(pd.concat([real, people(60, 1)]), real) >= 0.5


def test_distance_to_the_closest_record():
    real = pd.DataFrame({"w": list("abcd"), "x": [0.0, 1, 2, np.nan]})
    assert tables.closest(real, real).tolist() == [0, 0, 0, 0]
    far = pd.DataFrame({"w": ["z", "a"], "x": [np.nan, 1]})
    # ranks of 0, 1, 2 are 1/6, 3/6, 5/6: the second row is 2/6 from the first record in x, and equal in w.
    assert tables.closest(far, real) == pytest.approx([0.5, 1 / 6])
    assert tables.closest(people(300), people(200, 1), chunk=7) == pytest.approx(
        tables.closest(people(300), people(200, 1))
    )


def test_privacy_tells_copies_from_fresh_rows():
    rng = np.random.default_rng(3)
    train, fresh, holdout = (people(400, seed).assign(weight=rng.random(400)) for seed in range(3))
    copied, honest = tables.privacy(train, train, holdout), tables.privacy(fresh, train, holdout)
    assert copied.copies == 1 and copied.closer > 0.9 and copied.distance.max() == 0
    assert honest.copies < 0.1 and abs(honest.closer - 0.5) < 0.1
    assert np.median(honest.distance) == pytest.approx(np.median(honest.real_distance), abs=0.02)


def test_bits_of_columns_sum_to_the_bits_of_rows():
    terms = -np.random.default_rng(0).random((5, 4))
    scores = LogProb(terms.sum(1), per_site=terms)
    bits = tables.bits_per_column(scores, {"a": slice(0, 1), "b": slice(1, 4)})
    assert sum(bits.values()) == pytest.approx(-np.asarray(scores) / math.log(2))
    with pytest.raises(DataError, match="per_site"):
        tables.bits_per_column(LogProb([-1.0]), {"a": slice(0, 1)})


def test_figures_of_sdmetrics_or_one_sentence():
    real = people(200)
    try:
        import sdmetrics  # noqa: F401
    except ImportError:
        with pytest.raises(UnsupportedError, match="pip install"):
            tables.sdmetrics_scores(real, real)
        return
    found = tables.sdmetrics_scores(real, shuffled(real))
    assert found["Column Shapes"] == pytest.approx(1) and found["Column Pair Trends"] < 0.9
