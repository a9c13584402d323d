"""Studies: found like recipes, run as commands, and right where the answer is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from ancestral.cli import main
from ancestral.errors import DataError
from ancestral.recipes.registry import catalogue, find, studies


def test_studies_are_in_the_catalogue_beside_the_recipes(capsys):
    assert "model-collapse-accumulate" in studies()
    assert not set(studies()) & set(catalogue())
    assert main(["recipes", "--modality", "study", "--json"]) == 0
    assert [r["id"] for r in json.loads(capsys.readouterr().out)] == sorted(studies())
    with pytest.raises(DataError, match="ancestral study"):
        find("model-collapse-accumulate")


@pytest.mark.parametrize("name", sorted(studies()))
def test_every_study_runs_at_its_tiny_size(name):
    record = studies()[name]
    json.dumps(record.build(**record.config(**record.tiny)), allow_nan=False)


def test_regression_follows_the_closed_form():
    found = studies()["model-collapse-accumulate"].build(generations=10, seeds=200, rows=100, features=10)
    for way in ("replace", "accumulate"):
        mean, sd, formula = (np.array(found[way][k]) for k in ("mean", "sd", "formula"))
        assert (np.abs(mean - formula) <= 4 * sd / math.sqrt(200)).all()
    assert found["replace"]["mean"][-1] > 7 * found["first"]
    assert found["accumulate"]["mean"][-1] < math.pi**2 / 6 * 1.15 * found["first"]


def test_a_library_model_goes_through_the_generations(tmp_path):
    rng = np.random.default_rng(0)
    side = rng.choice(["l", "r"], 60)
    pd.DataFrame({"a": side, "b": side}).to_csv(tmp_path / "t.csv", index=False)
    options = json.dumps({"steps": 5, "width": 16})
    found = studies()["model-collapse-accumulate"].build(
        recipe="nade", data=str(tmp_path / "t.csv"), generations=2, seeds=1, options=options
    )
    # Both ways begin with the same model of the same real rows.
    assert found["replace"]["mean"][0] == found["accumulate"]["mean"][0] > 0
    assert found["replace"]["mean"][1] != found["accumulate"]["mean"][1]
    with pytest.raises(DataError, match="needs data"):
        studies()["model-collapse-accumulate"].build(recipe="nade")


def test_the_command_prints_and_writes(tmp_path, capsys):
    out = tmp_path / "found.json"
    command = ["study", "model-collapse-accumulate", "--set", "generations=2", "--set", "seeds=2", "--out", str(out)]
    assert main(command) == 0
    assert "last_replace" in capsys.readouterr().out and len(json.loads(out.read_text())["replace"]["mean"]) == 2
    assert main(["study", "nothing"]) == 2
    assert "model-collapse-accumulate" in capsys.readouterr().err
