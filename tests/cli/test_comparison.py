"""compare and the report of images, by the command line: one table and one self-contained page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ancestral.cli import main
from ancestral.commands.comparing import _print
from ancestral.data import Images, Text
from ancestral.evaluation.comparison import Comparison, Contender, compare
from ancestral.quickstart import digits

SMALL = ["--set", "width=16", "--set", "depth=1", "--quiet", "--json"]


@pytest.fixture(scope="module")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "digits.npz"
    digits()[1].take(slice(0, 300)).save(path)
    return path


def self_contained(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    for outside in ("http://", "https://", "<script", "@import", "url("):
        assert outside not in text, f"the page is not self-contained: {outside}"
    return text


def test_images_side_by_side(digits_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    command = ["compare", str(digits_file), "--recipes", "conv-nade,maskgit", "--minutes", "0.01", "--out", str(page)]
    assert main([*command, "--samples", "40", "--feature-minutes", "0.01", *SMALL]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["recipe"] for row in found["recipes"]] == ["conv-nade", "maskgit"]
    conv, mask = found["recipes"]
    assert conv["passes"] == 64 and mask["passes"] < 16
    for row in (conv, mask):
        assert row["count"] == 40
        assert row["failed"] == "" and row["parameters"] > 0 and row["steps"] > 0 and row["seconds"] > 0
        assert set(row["quality"]) == set(found["measures"])
        assert row["quality"]["frechet"] >= 0 and row["bits_of"] == "items"
    assert found["tested_on"] == 30 and found["trained_on"] == 270
    assert found["feature_network"].startswith("label-classifier ")
    assert found["reference"] == "digits.npz, a tenth held out (30 images)"
    assert set(found["real_items"]) < set(found["measures"])
    text = self_contained(page)
    for word in ("conv-nade", "maskgit", "real items", "Fréchet distance", "forward passes", found["feature_network"]):
        assert word in text
    assert text.count("<img") == 3


def test_a_narrow_terminal_shows_whole_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns that do not fit are named rather than cut."""
    quality = {"frechet": 12.345, "precision": 0.5, "recall": 0.25, "accuracy": 0.125, "bits": 3.5}
    rows = [
        Contender(
            "next-patch-prediction", parameters=12_345_678, steps=2_468, passes=256, count=40, seconds=0.0123,
            quality=quality,
        ),
        Contender("var", failed="it was not to be"),
    ]  # fmt: skip
    measures = {name: ("", "low") for name in quality}
    found = Comparison("images", 90, 10, 1.0, rows, measures, {}, digits()[1], "some images", "a net", 0)
    _print(found, Path("page.html"))
    told = capsys.readouterr().out
    for whole in ("next-patch-prediction", "12,345,678", "2,468", "256", "0.0123", "12.3", "40 per recipe", "a net"):
        assert whole in told, told
    assert "…" not in told and "var: it was not to be" in told
    assert "not shown, but on the page:" in told and "bits" in told


def test_tables_and_texts(place: Path, tmp_path: Path) -> None:
    rows = (place / "people.csv").read_text() + "".join((place / "people.csv").read_text().splitlines(True)[1:]) * 4
    (tmp_path / "people.csv").write_text(rows)
    options = {"minutes": 0.01, "samples": 40, "settings": {"width": 16, "depth": 1}}
    found = compare(tmp_path / "people.csv", ["nade", "tabular-argn"], **options)
    for row in found.rows:
        assert not row.failed and 0 <= row.quality["auc"] <= 1 and row.quality["bits"] > 0
    assert set(found.floor) == {"auc", "marginal"}
    text = Text(["the cat sat on the mat. " * 200])
    read = compare(text, ["gpt"], 0.01, settings={"width": 16, "depth": 1, "length": 32})
    assert read.rows[0].failed == "" and 0 < read.rows[0].quality["bits"] < 16
    assert read.tested == pytest.approx(480, abs=30)


def test_a_recipe_that_fails_leaves_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = digits()[1].take(slice(0, 250))
    items.save(tmp_path / "digits.npz")
    page = tmp_path / "page.html"
    command = ["compare", str(tmp_path / "digits.npz"), "--recipes", "conv-nade,var", "--minutes", "0.01"]
    command += ["--samples", "30", "--feature-minutes", "0.01", "--out", str(page)]
    assert main([*command, *SMALL, "--set", "scales=[1,3]"]) == 0
    conv, var = json.loads(capsys.readouterr().out)["recipes"]
    assert not conv["failed"] and "scales" in var["failed"] and "\n" not in var["failed"]
    assert "not measured" in self_contained(page)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipes", "var,nothing"], "there is no recipe 'nothing'"),
        (["--recipes", "label-classifier"], "is a feature network"),
        (["--recipes", "var", "--out", "page.txt"], "ends in .html"),
        (["--recipes", "var", "--minutes", "0"], "must be more than zero"),
        (["--recipes", "var", "--set", "wide=3"], "there is no setting 'wide'"),
        (["--recipes", "var", "--set", "steps=3"], "equal budget in minutes"),
        (["--recipes", "var", "--features", "resnet"], "there is no feature network 'resnet'"),
        (["--recipes", "var", "--samples", "3"], "too few to compare"),
        (["--recipes", ","], "name at least one recipe"),
    ],
)
def test_refusals_in_one_sentence(
    digits_file: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "page.html")]
    assert main(["compare", str(digits_file), *arguments, *out, "--quiet"]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said
    assert not (tmp_path / "page.html").exists()


def test_the_report_of_a_model_of_images(
    place: Path, digits_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    command = ["report", str(place / "digits.ancestral"), str(digits_file), "--out", str(page), "--samples", "30"]
    assert main([*command, "--feature-minutes", "0.01", "--guidance", "0.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for key in ("frechet", "kernel", "precision", "recall", "density", "coverage", "inception_score", "accuracy"):
        assert found["figures"][key]["network"].startswith("label-classifier ")
        assert found["figures"][key]["made"] == 30
    assert found["figures"]["frechet"]["real"] == 150 and found["figures"]["frechet"]["floor"] >= 0
    assert "half of digits.npz" in found["figures"]["frechet"]["reference"]
    text = self_contained(page)
    assert "Fréchet" in text and text.count("<img") == 2
    # The same with a network that is there, and in words.
    assert main([*command, "--training", str(digits_file), "--feature-minutes", "0.01"]) == 0
    assert "forward passes" in capsys.readouterr().out
    large = np.load(digits_file)["images"].repeat(2, 1).repeat(2, 2)
    Images.read(large[:40]).save(tmp_path / "large")
    tiny = ["--recipe", "maskgit", "--set", "width=16", "--set", "depth=1", "--set", "passes=2", "--steps", "1"]
    fitting = ["fit", str(tmp_path / "large"), *tiny, "--set", "size=8", "--out", str(tmp_path / "m"), "--json"]
    assert main(fitting) == 0
    capsys.readouterr()
    folder = ["report", str(tmp_path / "m"), str(tmp_path / "large"), "--out", str(page)]
    sized = ["--set", "size=8", "--samples", "20", "--feature-minutes", "0.01", "--json"]
    assert main([*folder, *sized]) == 0
    assert json.loads(capsys.readouterr().out)["figures"]["frechet"]["real"] == 20
    assert main([*folder, "--set", "sise=8"]) == 2
    assert "did you mean 'size'" in capsys.readouterr().err
    assert main([*command, "--features", str(tmp_path)]) == 2
    assert "holds no saved feature network" in capsys.readouterr().err
