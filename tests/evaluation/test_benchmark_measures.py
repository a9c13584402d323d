"""The measures that the side-by-side benchmark adds: hidden cells, imputation error, a code of single columns."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def modules():
    """quality.py and bits.py of benchmarks/tables."""
    pytest.importorskip("sklearn")
    sys.path[:0] = [str(FOLDER / "tables"), str(FOLDER)]
    try:
        yield importlib.import_module("quality"), importlib.import_module("bits")
    finally:
        del sys.path[:2]


def frame(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    age = rng.integers(20, 60, n)
    return pd.DataFrame({"age": age.astype(str), "old": np.where(age > 40, "yes", "no"), "gap": ["", "x"] * (n // 2)})


def test_hidden_cells_are_a_share_and_no_row_is_empty(modules):
    quality, _ = modules
    test = frame()
    gaps = quality.hide(test)
    hidden = (gaps == "") & (test != "")
    assert abs(hidden[["age", "old"]].to_numpy().mean() - 0.2) < 0.05
    nearly = quality.hide(test, 0.99)
    assert not ((nearly == "").all(axis=1) & (test != "").all(axis=1)).any()
    assert quality.hide(test, 0.2, 1).equals(quality.hide(test, 0.2, 1))


def test_imputation_error_is_0_for_the_truth_and_1_for_the_median(modules):
    quality, _ = modules
    test = frame()
    gaps = quality.hide(test)
    right = quality.imputation_error(test, gaps, [test], test)
    assert right["error"] == {"draw": 0, "point": 0}
    empty = quality.imputation_error(test, gaps, [gaps], test)
    assert empty["columns"]["age"]["draw"] == pytest.approx(1)
    assert empty["columns"]["old"]["draw"] == 1
    # Two of three draws are right: a single one errs in a third, their commonest word never.
    wrong = test.assign(old=np.where(test.old == "yes", "no", "yes"))
    mixed = quality.imputation_error(test, gaps, [test, wrong, test], test)
    assert mixed["columns"]["old"] == {"draw": pytest.approx(1 / 3), "point": 0}


def test_the_code_of_single_columns_reaches_its_entropy_and_unseen_cells(modules):
    _, bits = modules
    words = pd.Series(list("aaabbc") * 200)
    chances = np.array([3, 2, 1]) / 6
    assert bits._column(words, words, 0.9999) == pytest.approx(-(chances * np.log2(chances)).sum(), abs=1e-3)
    assert math.isfinite(bits._column(words, pd.Series(["never seen"]), 0.99))
    known = pd.Series([str(i) for i in range(0, 1000, 2)])
    assert 8 < bits._column(known, pd.Series(["501", "503"]), 0.5) < 13


def test_recorded_commands_hold_no_absolute_path(modules):
    record = importlib.import_module("record")
    inside, beside = record.ROOT / "benchmarks" / "x.csv", record.ROOT.parent / "shared" / "data"
    assert record.portable(str(inside)) == "benchmarks/x.csv"
    assert record.portable(str(beside)) == "../shared/data"
    assert record.portable(f"--data={beside}") == "--data=../shared/data"
    assert [record.portable(a) for a in ("--rows", "3", "data/x.csv")] == ["--rows", "3", "data/x.csv"]
