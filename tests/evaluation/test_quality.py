"""The quality report: what it gathers, what it says when something is not to be had, and its page."""

from __future__ import annotations

import html.parser
import json

import numpy as np
import pandas as pd
import pytest

import ancestral
from ancestral.cli import main
from ancestral.errors import DataError
from ancestral.evaluation import quality, tables
from ancestral.evaluation.quality_page import page


def table(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    kind = rng.choice(["a<b", "c&d"], n)
    size = np.where(kind == "a<b", 5, 50) + rng.integers(0, 5, n)
    return pd.DataFrame({"kind": kind, "size": size, "gap": np.where(rng.random(n) < 0.3, "", "x")})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model, its training table and held-out rows."""
    folder = tmp_path_factory.mktemp("quality")
    table(300, 0).to_csv(folder / "train.csv", index=False)
    table(200, 1).to_csv(folder / "test.csv", index=False)
    options = {"recipe": "any-order", "width": 16, "depth": 1, "heads": 2, "steps": 60, "quiet": True}
    ancestral.fit(folder / "train.csv", **options).save(folder / "t.ancestral")
    return folder


@pytest.fixture(scope="module")
def found(place):
    pytest.importorskip("sklearn")
    model = ancestral.load(place / "t.ancestral")
    return quality.measure(model, place / "test.csv", place / "train.csv", rows=150, target="kind")


def test_the_figures_are_those_of_the_measures(found, place):
    model = ancestral.load(place / "t.ancestral")
    assert len(found.real) == 150 and found.trained == 300
    assert list(found.synthetic.columns) == ["kind", "size", "gap"]
    bits = -np.asarray(model.log_prob(found.real)).mean() / np.log(2)
    assert found.row_bits == pytest.approx(bits, abs=1e-6)
    assert found.marginals == tables.marginals(found.real, found.synthetic)
    assert found.privacy is not None and 0 <= found.privacy.closer <= 1
    # Rows of the same source cannot be told apart, and what they teach is certain here.
    assert found.auc_real < 0.6
    assert found.target == "kind" and found.worth_real == pytest.approx(1)
    json.dumps(found.summary(), allow_nan=False)


def test_what_is_not_to_be_had_is_said(place, monkeypatch):
    def absent(what):
        raise ancestral.errors.UnsupportedError(f"{what} needs scikit-learn")

    monkeypatch.setattr(tables, "_needs_sklearn", absent)
    model = ancestral.load(place / "t.ancestral")
    out = quality.measure(model, place / "test.csv", rows=60)
    assert out.auc is None and out.worth is None and out.privacy is None
    assert "scikit-learn" in out.notes["two-sample"] and "--training" in out.notes["privacy"]
    assert out.notes["two-sample"] in page(out, "Quality", [])


def test_the_page_is_whole_and_asks_for_nothing(found):
    text = page(found, "Quality of <mine>", [("model", "a & b")])
    assert "http" not in text.replace("http://www.w3.org", "") and "<script" not in text
    assert "Quality of &lt;mine&gt;" in text and "a&lt;b" in text and ">a<b" not in text
    opened: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "rect", "line", "path", "img", "p", "td", "tr", "th"):
                opened.append(tag)

        def handle_endtag(self, tag):
            if tag in ("rect", "line", "path", "p", "td", "tr", "th"):
                return
            assert opened.pop() == tag

    Reader().feed(text)
    assert opened == []


def test_the_command_writes_the_page(place, tmp_path, capsys):
    pytest.importorskip("sklearn")
    out = tmp_path / "r.html"
    command = ["report", place / "t.ancestral", place / "test.csv", "--rows", "60", "--out", out, "--json"]
    assert main([str(c) for c in command]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["rows"] == 60 and 0 <= answer["two_sample_auc"] <= 1
    assert out.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--out", "r.txt"], "ends in .html"),
        (["--rows", "3"], "at least 20"),
        (["--target", "size2"], "no column 'size2'"),
    ],
)
def test_mistakes_are_one_sentence(place, capsys, more, sentence):
    assert main(["report", str(place / "t.ancestral"), str(place / "test.csv"), *more]) == 2
    assert sentence in capsys.readouterr().err


def test_models_of_other_data_are_refused():
    model = ancestral.recipes.find("any-order")(data="images", width=16, depth=1, heads=2)
    with pytest.raises(DataError, match="models of tables"):
        quality.measure(model, table(30, 0))
