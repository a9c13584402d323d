"""The verbs of models of tables, on data in another form than they were fitted on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ancestral
from ancestral import Model


@pytest.fixture(scope="module")
def model() -> Model:
    frame = pd.DataFrame({"a": [0.5, 1.5, 2.0, 0.5] * 15, "s": ["x", "y"] * 30, "k": [1, 2, 3] * 20})
    return ancestral.fit(frame, steps=2, quiet=True, validation=0, width=16, depth=1)


def test_a_csv_is_completed_by_a_model_of_a_frame(model: Model, tmp_path: Path) -> None:
    gaps = tmp_path / "gaps.csv"
    gaps.write_text("a,s,k\n0.50,x,03\n1.5,,2\n,new,1\n")
    done = model.complete(gaps, draws=2, as_dataset=True)
    assert done.kind == "csv" and len(done) == 6
    cells = done.frame.values.tolist()
    assert cells[0] == cells[1] == ["0.50", "x", "03"]  # as the file writes it, to the letter
    assert [row[0] for row in cells[2:4]] == ["1.5"] * 2 and {row[1] for row in cells[2:4]} <= {"x", "y"}
    assert [row[1:] for row in cells[4:]] == [["new", "1"]] * 2 and "" not in [row[0] for row in cells[4:]]
    done.save(tmp_path / "done.csv")
    assert (tmp_path / "done.csv").read_text().startswith("a,s,k\n0.50,x,03\n")
    assert model.complete(gaps)["s"].tolist()[2] == "new"


def test_a_frame_is_completed_with_the_cells_it_has(model: Model) -> None:
    gaps = pd.DataFrame({"a": [7.25, np.nan], "s": ["new", "x"], "k": [3, 2]})
    done = model.complete(gaps)
    assert done["a"][0] == 7.25 and done["s"].tolist() == ["new", "x"] and done["k"].tolist() == [3, 2]
    assert done["a"].notna().all() and done["a"].dtype == "float64"


def test_a_csv_is_compressed_to_the_letter_by_a_model_of_a_frame(model: Model, tmp_path: Path) -> None:
    text = "k,a,s\n03,0.50,x\n2,1.5,\n,,new\n9,7.25,y\n"
    (tmp_path / "in.csv").write_text(text)
    back = model.decompress(model.compress(tmp_path / "in.csv"), as_dataset=True)
    back.save(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == text
