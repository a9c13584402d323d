"""Every command, from its arguments to the files it writes."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from cli_models import SMALL, answer, pixels, run, shell
from PIL import Image

import ancestral
from ancestral.cli import main
from ancestral.data import Images
from ancestral.recipes.registry import feature_networks, studies


def test_fit_summary_and_the_saved_model(place, tmp_path, capsys):
    target = tmp_path / "model"
    found = answer(
        capsys, "fit", place / "digits.npz", "--out", target, "--seed", 3,
        "--validation", "0.2", *SMALL, "--set", "lr=0.002", "--set", "dropout=0",
    )  # fmt: skip
    assert found["recipe"] == "any-order" and found["steps"] == 3 and found["stopped"] == "budget"
    assert 0 < found["validation_bits"] < 10
    model = ancestral.load(target)
    assert model.config["width"] == 16 and model.config["dropout"] == 0
    assert model.parameters == found["parameters"]


def test_fit_replaces_a_model_but_not_other_folders(place, tmp_path, capsys):
    target = tmp_path / "model"
    for _ in range(2):
        answer(capsys, "fit", place / "people.csv", "--out", target, *SMALL)
    (target / "model.json").unlink()
    code, _, err = run(capsys, "fit", place / "people.csv", "--out", target, *SMALL)
    assert code == 2 and "not empty" in err


def test_samples_as_files_and_on_a_sheet(place, tmp_path, capsys):
    model = place / "digits.ancestral"
    found = answer(capsys, "sample", model, "-n", 5, "--label", "3", "--out", tmp_path / "some.npz")
    assert found["n"] == 5 and pixels(tmp_path / "some.npz").shape == (5, 8, 8, 1)
    assert run(capsys, "sample", model, "-n", 4, "--out", tmp_path / "folder")[0] == 0
    assert len(Images.read(tmp_path / "folder")) == 4
    code, out, _ = run(capsys, "sample", model, "-n", 4, "--out", tmp_path / "sheet.png")
    assert code == 0 and "one sheet" in out
    width, height = Image.open(tmp_path / "sheet.png").size
    assert width == height and width > 2 * 8


def test_samples_depend_on_the_seed_and_their_number_only(place, tmp_path, capsys):
    model = place / "digits.ancestral"
    files = [tmp_path / f"{i}.npz" for i in range(4)]
    for file, extra in zip(files, (["-n", 6], ["-n", 6], ["-n", 4, "--first", 2], ["-n", 6, "--seed", 1])):
        answer(capsys, "sample", model, "--out", file, *extra)
    first, second, later, other = map(pixels, files)
    assert np.array_equal(first, second) and np.array_equal(first[2:], later)
    assert not np.array_equal(first, other)


def test_samples_of_a_table_with_a_given_column(place, tmp_path, capsys):
    found = answer(capsys, "sample", place / "people.ancestral", "-n", 7, "--given", "sex=Female", "--given", "age=30")
    assert len(found["items"]) == 7
    assert all(row["sex"] == "Female" and row["age"] == 30 for row in found["items"])
    code, out, _ = run(capsys, "sample", place / "people.ancestral", "-n", 3)
    rows = list(csv.DictReader(out.splitlines()))
    assert code == 0 and len(rows) == 3 and set(rows[0]) == {"sex", "age", "group"}


def test_samples_of_a_table_within_ranges_and_sets(place, tmp_path, capsys):
    model = place / "people.ancestral"
    found = answer(capsys, "sample", model, "-n", 20, "--given", "age=30..40", "--given", 'group in a, "b"')
    assert all(30 <= item["age"] <= 40 and item["group"] in "ab" for item in found["items"])
    found = answer(capsys, "sample", model, "-n", 9, "--given", "age=60..")
    assert all(item["age"] >= 60 for item in found["items"])


def test_odd_rows_of_a_table(place, tmp_path, capsys):
    model = place / "people.ancestral"
    (tmp_path / "new.csv").write_text("sex,age,group\nFemale,30,a\nMale,40,zzz\n")
    found = answer(capsys, "anomalies", model, tmp_path / "new.csv", "-n", 1)["rows"]
    assert [(each["row"], each["column"], each["cell"]) for each in found] == [(1, "group", "zzz")]
    assert main(["anomalies", str(model), str(tmp_path / "new.csv"), "--out", str(tmp_path / "odd.csv")]) == 0
    assert "2 rows in" in capsys.readouterr().out
    assert main(["anomalies", str(model), str(tmp_path / "new.csv")]) == 0
    assert "row 1: group is 'zzz' (probability" in capsys.readouterr().out


def test_samples_of_text_that_begins_as_given(place, capsys):
    found = answer(capsys, "sample", place / "novel.ancestral", "-n", 2, "--given", "It was", "--length", 9)
    assert len(found["items"]) == 2 and all(text.startswith("It was") for text in found["items"])


def test_scores_agree_with_the_library(place, tmp_path, capsys):
    data, model = place / "digits.npz", place / "digits.ancestral"
    found = answer(capsys, "score", model, data, "--per-site", "--out", tmp_path / "scores.csv")
    exact = ancestral.load(model).log_prob(data)
    assert found["items"] == 64 and found["kind"] == "exact" and found["dimensions"] == 64 * 64
    assert found["bits_per_dim"] == pytest.approx(exact.bits_per_dim(), abs=1e-9)
    with (tmp_path / "scores.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [float(r["nats"]) for r in rows] == pytest.approx(list(np.asarray(exact)))
    sites = sum(float(rows[5][f"site_{i}_bits"]) for i in range(64))
    assert sites == pytest.approx(-exact[5] / math.log(2))
    answer(capsys, "score", model, data, "--per-site", "--out", tmp_path / "scores.npz")
    assert np.load(tmp_path / "scores.npz")["site_bits"].shape == (64, 64)
    bound = answer(capsys, "score", model, data, "--bound", 2)
    assert bound["kind"] == "lower_bound"


def test_completion_keeps_what_is_known(place, tmp_path, capsys):
    data, model = place / "digits.npz", place / "digits.ancestral"
    found = answer(capsys, "complete", model, data, "--known", "left", "--draws", 2, "--out", tmp_path / "done.npz")
    assert found["n"] == 128 and found["method"] == "exact"
    before, after = pixels(data), pixels(tmp_path / "done.npz").reshape(64, 2, 8, 8, 1)
    assert np.array_equal(after[:, :, :, :4], np.repeat(before[:, None, :, :4], 2, 1))
    assert not np.array_equal(after[:, 0], after[:, 1])
    mask = np.zeros((8, 8), bool)
    mask[::2] = True
    np.save(tmp_path / "mask.npy", mask)
    answer(capsys, "complete", model, data, "--known", tmp_path / "mask.npy", "--out", tmp_path / "rows.npz")
    assert np.array_equal(pixels(tmp_path / "rows.npz")[:, ::2], before[:, ::2])
    for white in (1, 255):
        Image.fromarray(mask.astype(np.uint8) * white).save(tmp_path / "mask.png")
        answer(capsys, "complete", model, data, "--known", tmp_path / "mask.png", "--out", tmp_path / "png.npz")
        assert np.array_equal(pixels(tmp_path / "png.npz"), pixels(tmp_path / "rows.npz"))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "black.png")
    code, _, said = run(capsys, "complete", model, data, "--known", tmp_path / "black.png", "--out", tmp_path / "b.npz")
    assert code == 0 and "nothing is known" in said


def test_names_that_the_recipe_and_the_reader_share_are_the_recipes(place, tmp_path, capsys):
    """An autoencoder's channels are not those of the images."""
    tiny = {"width": 16, "depth": 1, "heads": 2, "codes": 4, "channels": 8, "multipliers": "[1]", "perceptual": 0}
    options = [part for name, value in tiny.items() for part in ("--set", f"{name}={value}")]
    options += ["--recipe", "llamagen", "--steps", "1", "--set", "reader.channels=1"]
    answer(capsys, "fit", place / "pictures", *options, "--out", tmp_path / "m")
    made = ancestral.load(tmp_path / "m")
    assert made.config["channels"] == 8 and made.tokenizer.shape[2] == 1


def test_completion_of_a_table_and_of_text(place, tmp_path, capsys):
    model = place / "people.ancestral"
    assert run(capsys, "complete", model, place / "gaps.csv", "--out", tmp_path / "full.csv")[0] == 0
    with (tmp_path / "full.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert rows[0]["sex"] == "Female" and rows[0]["group"] == "a" and rows[1]["age"] == "30"
    assert all(cell for row in rows for cell in row.values())
    found = answer(capsys, "complete", model, place / "gaps.csv", "--point")
    again = answer(capsys, "complete", model, place / "gaps.csv", "--point", "--seed", 5)
    assert found["method"] == "point" and found["items"] == again["items"] and len(found["items"]) == len(rows)
    found = answer(capsys, "complete", model, place / "people.csv", "--known", "sex,age")
    assert found["method"] == "exact" and len(found["items"]) == 60
    text = answer(capsys, "complete", place / "novel.ancestral", place / "novel.txt", "--length", 5)
    assert text["method"] == "prefix"
    assert text["items"][0].startswith((place / "novel.txt").read_text())


@pytest.mark.parametrize(("name", "suffix"), [("digits", "npz"), ("people", "csv"), ("novel", "txt")])
def test_compression_round_trip(place, tmp_path, capsys, name, suffix):
    data, model = place / f"{name}.{suffix}", place / f"{name}.ancestral"
    small, back = tmp_path / "small.anc", tmp_path / f"back.{suffix}"
    found = answer(capsys, "compress", model, data, "--out", small, "--verify")
    assert found["bytes_after"] == small.stat().st_size and found["verified"]
    assert found["ratio"] == pytest.approx(data.stat().st_size / small.stat().st_size)
    assert run(capsys, "decompress", model, small, "--out", back)[0] == 0
    if suffix == "npz":
        first, second = np.load(data), np.load(back)
        assert all(np.array_equal(first[key], second[key]) for key in ("images", "labels", "classes", "levels"))
    else:
        assert back.read_bytes() == data.read_bytes()


def test_info(place, capsys):
    found = answer(capsys, "info", place / "people.ancestral")
    assert found["columns"] == ["sex", "age", "group"] and found["any_order"] and "compress" in found["verbs"]
    assert found["config"]["width"] == 16
    code, out, _ = run(capsys, "info", place / "digits.ancestral")
    assert code == 0 and "64 (8 x 8), 17 values each" in out and "complete" in out


def test_quantised_models_are_smaller_and_usable(place, tmp_path, capsys):
    model, small = place / "digits.ancestral", tmp_path / "small"
    found = answer(capsys, "quantise", model, "--bits", "4", "--out", small)
    assert found["bytes"] < 0.5 * found["bytes_before"] and found["parameters"] == ancestral.load(small).parameters
    assert answer(capsys, "info", small)["bytes"] < answer(capsys, "info", model)["bytes"]
    answer(capsys, "sample", small, "-n", 2, "--out", tmp_path / "two.npz")
    code, _, err = run(capsys, "quantise", small, "--out", tmp_path / "again")
    assert code == 2 and "already" in err
    code, _, err = run(capsys, "quantise", model, "--group", "-3", "--out", tmp_path / "again")
    assert code == 2 and "group=-3" in err


def test_recipes_listing_filters_and_details(capsys):
    everything = answer(capsys, "recipes")
    assert {r["id"] for r in everything} == set(ancestral.recipes()) | set(studies()) | set(feature_networks())
    images = answer(capsys, "recipes", "--modality", "images")
    assert images and all(r["modality"] == "image" for r in images)
    assert "gpt" in [r["id"] for r in answer(capsys, "recipes", "--search", "radford")]
    one = answer(capsys, "recipes", "gpt")
    assert one["arguments"]["width"] == "256" and one["description"].startswith(one["summary"])
    code, out, _ = run(capsys, "recipes", "gpt")
    assert code == 0 and "width" in out and "--recipe gpt" in out
    assert run(capsys, "recipes")[1].splitlines()[0].count("\t") == 3


RECIPE = '''
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import Symbols


@recipe("mine", title="Mine", tiny=dict(width=8), toy="tokens", claim=Claim("it works"){declared})
def mine(width: int = 8) -> Model:
    """A recipe of one's own."""
    return Model(Symbols(3), "raster", CausalTransformer(width, 1, 1), Categorical())
'''


def test_check_of_a_recipe_outside_the_package(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(RECIPE.replace("{declared}", ""))
    found = answer(capsys, "check", file)
    assert {r["law"] for r in found} >= {"causality", "coding", "resume"}
    assert all(r["status"] in ("ok", "not applicable") for r in found)
    assert sum(r["status"] == "ok" for r in found) >= 7
    # A law that is declared to fail and holds is a failure: the verdict must reach the exit code.
    file.write_text(RECIPE.replace("{declared}", ', xfail={"causality": "sees the future"}'))
    code, out, _ = run(capsys, "check", file)
    assert code == 1 and "1 failed" in out


def test_help_version_and_examples_come_without_torch():
    script = (
        "import sys; from ancestral.cli import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules; sys.exit(code)"
    )
    import subprocess
    import sys

    for arguments, expected in (
        (["--help"], "quickstart"),
        ([], "examples:"),
        (["fit", "--help"], "--minutes"),
        (["recipes"], "any-order"),
        (["--version"], ancestral.__version__),
    ):
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and expected in done.stdout, done.stderr


def test_the_program_as_a_process(place, tmp_path):
    import subprocess
    import sys

    module = [sys.executable, "-m", "ancestral", "--version"]
    assert subprocess.run(module, capture_output=True, text=True, timeout=60).stdout.startswith("ancestral ")
    done = shell("sample", place / "people.ancestral", "-n", 2, "--out", "drawn.csv", cwd=tmp_path)
    assert done.returncode == 0 and "2 rows in drawn.csv" in done.stdout and done.stderr == ""
    assert len((tmp_path / "drawn.csv").read_text().splitlines()) == 3
    refused = shell("info", tmp_path / "nothing.ancestral")
    assert refused.returncode == 2 and refused.stdout == "" and refused.stderr.count("\n") == 1
    assert "Traceback" not in refused.stderr
    traced = shell("info", tmp_path / "nothing.ancestral", "--trace")
    assert traced.returncode != 0 and "Traceback" in traced.stderr


def test_quickstart_end_to_end(tmp_path, capsys, monkeypatch):
    from ancestral import quickstart

    monkeypatch.setattr(quickstart, "RECIPE", "any-order")
    monkeypatch.setattr(quickstart, "SETTINGS", {"width": 16, "depth": 1, "heads": 2, "batch_size": 32})
    found = answer(capsys, "quickstart", "--minutes", "0.01", "--out", tmp_path / "first")
    assert json.loads((tmp_path / "first" / "results.json").read_text()) == found
    assert found["kind"] == "exact" and found["raw_bytes"] == 360 * 64
    assert found["baselines"]["uniform"] == pytest.approx(math.log2(17))
    assert found["compressed_bytes"] == (tmp_path / "first" / "test.anc").stat().st_size
    assert set(found["baselines"]) > {"independent pixels", "xz -9e", "zlib -9", "PNG, one file"}
    html = (tmp_path / "first" / "report.html").read_text()
    assert f"{found['bits_per_dim']:.3f}" in html and html.count("<svg") == 2
    for outside in ("http://", "https://", "<script", "<link", "@import", 'src="/', "url(http"):
        assert outside not in html, f"the report is not self-contained: {outside}"
    assert html.count("data:image/png;base64,") == 10 + 8 * 10
    model = ancestral.load(tmp_path / "first" / "digits.ancestral")
    assert model.log_prob(tmp_path / "first" / "test.npz").bits_per_dim() == pytest.approx(found["bits_per_dim"])
    again = model.decompress((tmp_path / "first" / "test.anc").read_bytes())
    assert np.array_equal(again, pixels(tmp_path / "first" / "test.npz")[..., 0])
