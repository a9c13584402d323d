"""Tables in several files, from the command line."""

from __future__ import annotations

import csv

import pytest
from cli_models import SMALL, answer, run

import ancestral
from ancestral.data import tablefiles


@pytest.fixture
def folder(place, tmp_path):
    """The rows of people.csv in two files of a folder."""
    header, *rows = (place / "people.csv").read_text().splitlines(keepends=True)
    (tmp_path / "parts").mkdir()
    for i in range(2):
        (tmp_path / "parts" / f"{i}.csv").write_text(header + "".join(rows[i::2]))
    return tmp_path / "parts"


def test_fit_score_and_sample_by_chunks(place, folder, tmp_path, capsys, monkeypatch):
    for part in (folder, folder / "*.csv"):
        found = answer(capsys, "fit", part, "--out", tmp_path / "m", *SMALL, "--set", "chunk=9")
        assert found["steps"] == 3
    whole = answer(capsys, "score", tmp_path / "m", place / "people.csv")
    parts = answer(capsys, "score", tmp_path / "m", folder, "--out", tmp_path / "s.csv", "--per-site")
    assert parts["items"] == whole["items"] and abs(parts["bits_per_dim"] - whole["bits_per_dim"]) < 1e-4
    rows = list(csv.DictReader((tmp_path / "s.csv").open()))
    assert len(rows) == whole["items"] and sum("nats of" in name for name in rows[0]) > 1
    assert run(capsys, "score", tmp_path / "m", folder)[0] == 0
    code, _, err = run(capsys, "score", tmp_path / "m", folder, "--order", "reverse")
    assert code == 2 and "without label, order and bound" in err
    monkeypatch.setattr(tablefiles, "CHUNK", 5)
    answer(capsys, "sample", tmp_path / "m", "-n", 12, "--seed", 3, "--out", tmp_path / "x.csv")
    expected = ancestral.load(tmp_path / "m").sample(12, seed=3)
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 13
    with (tmp_path / "x.csv").open() as file:
        first = next(csv.DictReader(file))
    assert set(first) == set(expected.columns)


def test_a_sequential_table_is_for_python(tmp_path, capsys):
    import pandas as pd

    rows = pd.DataFrame({"who": [1, 1, 2], "day": [1, 2, 1]})
    ancestral.fit(rows, key="who", time="day", steps=1, width=8, quiet=True).save(tmp_path / "m")
    for command in (["info"], ["sample"], ["score"]):
        extra = [tmp_path / "rows.csv"] if command == ["score"] else []
        rows.to_csv(tmp_path / "rows.csv", index=False)
        code, _, err = run(capsys, *command, tmp_path / "m", *extra)
        assert code == 2 and "holds a sequential table" in err
