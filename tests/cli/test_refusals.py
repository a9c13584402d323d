"""What cannot work is refused in one sentence that says what, where, and what to do."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from cli_models import SMALL, run, sentence
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ancestral import cli
from ancestral.commands import console
from ancestral.data import Images, write
from ancestral.errors import DataError


def test_missing_and_empty_and_corrupt_data(place, tmp_path, capsys):
    assert "no file" in sentence(capsys, "fit", tmp_path / "none.csv", *SMALL)
    (tmp_path / "empty").mkdir()
    assert "empty" in sentence(capsys, "fit", tmp_path / "empty", *SMALL)
    shutil.copytree(place / "pictures", tmp_path / "pictures")
    victim = next((tmp_path / "pictures").rglob("*.png"))
    victim.write_bytes(victim.read_bytes()[:40])
    assert victim.name in sentence(capsys, "fit", tmp_path / "pictures", "--out", tmp_path / "m", *SMALL)
    assert not (tmp_path / "m").exists()
    assert "no file" in sentence(capsys, "score", place / "digits.ancestral", tmp_path / "none.npz")


def test_models_that_are_none(place, tmp_path, capsys):
    assert "not a saved model" in sentence(capsys, "info", tmp_path / "none.ancestral")
    assert "saved model is a folder" in sentence(capsys, "info", place / "people.csv")
    broken = tmp_path / "broken.ancestral"
    shutil.copytree(place / "people.ancestral", broken)
    (broken / "model.json").write_text("{")
    assert "damaged" in sentence(capsys, "sample", broken)


def test_unknown_names(place, tmp_path, capsys):
    data = place / "people.csv"
    assert "any-order" in sentence(capsys, "fit", data, "--recipe", "any-odrer")
    said = sentence(capsys, "fit", data, "--out", tmp_path / "m", "--set", "widht=16")
    assert "'widht'" in said and "'width'" in said and "batch_size" in said
    assert "whole number" in sentence(capsys, "fit", data, *SMALL[:2], "--set", "width=wide")
    assert "name=value" in sentence(capsys, "fit", data, "--set", "width")
    twice = ["--set", "size=8", "--set", "reader.size=8"]
    assert "twice" in sentence(capsys, "fit", place / "pictures", *SMALL[:2], *twice)
    images = [place / "pictures", "--out", tmp_path / "m", "--steps", "1", "--quiet"]
    assert "shared by 3 heads" in sentence(capsys, "fit", *images, "--recipe", "aim", "--set", "heads=3")
    assert "must not be negative" in sentence(capsys, "fit", *images, "--recipe", "aim", "--set", "width=-3")
    assert "size=0 is no size" in sentence(capsys, "fit", *images, "--set", "size=0")
    assert "twice" in sentence(capsys, "fit", data, "--set", "width=8", "--set", "width=16")
    assert "did you mean sample" in sentence(capsys, "smaple", place / "people.ancestral")
    assert "did you mean gpt" in sentence(capsys, "recipes", "gptt")
    assert "image" in sentence(capsys, "recipes", "--modality", "smells")
    assert "no recipe" in sentence(capsys, "check", "nothing-like-it")
    assert "no column" in sentence(capsys, "sample", place / "people.ancestral", "--given", "height=3")
    assert "no value 'x'" in sentence(capsys, "sample", place / "people.ancestral", "--given", "group in a, x")
    assert "no end of the range" in sentence(capsys, "sample", place / "people.ancestral", "--given", "age=..")
    assert "no value at least 99; it takes" in sentence(
        capsys, "sample", place / "people.ancestral", "--given", "age=99.."
    )
    assert "no class" in sentence(
        capsys, "sample", place / "digits.ancestral", "--label", "eleven", "--out", tmp_path / "x"
    )
    assert "order" in sentence(
        capsys, "score", place / "digits.ancestral", place / "digits.npz", "--order", "zigzagged"
    )


def test_unknown_options_and_wrong_types_are_usage_errors(place, capsys):
    for arguments in (
        ["fit", place / "people.csv", "--colour", "blue"],
        ["sample", place / "people.ancestral", "-n", "many"],
        ["fit", place / "people.csv", "--modality", "smells"],
        ["decompress", place / "people.ancestral", "x.anc"],
        ["--colour"],
    ):
        code, out, err = run(capsys, *arguments)
        assert code == 2 and out == "" and err != ""


def test_targets_that_cannot_be_written_are_noticed_before_the_work(place, tmp_path, capsys, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("the work began")

    monkeypatch.setattr("ancestral.training.train", never)
    monkeypatch.setattr("ancestral.model.Model.sample", never)
    monkeypatch.setattr("ancestral.model.Model.log_prob", never)
    monkeypatch.setattr("ancestral.model.Model.compress", never)
    file = tmp_path / "file"
    file.write_text("in the way")
    below, model, data = file / "target", place / "digits.ancestral", place / "digits.npz"
    for command in (
        ["fit", data, "--out", below, *SMALL],
        ["sample", model, "--out", below / "x.npz"],
        ["score", model, data, "--out", below / "x.csv"],
        ["complete", model, data, "--known", "top", "--out", below / "x.npz"],
        ["compress", model, data, "--out", below / "x.anc"],
        ["decompress", model, data, "--out", below / "x.npz"],
        ["quickstart", "--out", below],
    ):
        assert "cannot write" in sentence(capsys, *command)
    assert "a file of that name" in sentence(capsys, "fit", data, "--out", file, *SMALL)
    full = tmp_path / "full"
    full.mkdir()
    (full / "letters.txt").write_text("dear")
    assert "--overwrite" in sentence(capsys, "sample", model, "--out", full)
    said = sentence(capsys, "fit", data, "--out", full, *SMALL)
    assert "choose another --out" in said and "--overwrite" not in said  # which fit does not have
    assert (full / "letters.txt").read_text() == "dear"


def test_damaged_and_foreign_streams(place, tmp_path, capsys):
    small, back = tmp_path / "small.anc", tmp_path / "back.csv"
    assert run(capsys, "compress", place / "people.ancestral", place / "people.csv", "--out", small)[0] == 0
    blob = bytearray(small.read_bytes())
    blob[len(blob) // 2] ^= 1
    (tmp_path / "damaged.anc").write_bytes(blob)
    (tmp_path / "cut.anc").write_bytes(blob[:-7])
    for name in ("damaged.anc", "cut.anc"):
        sentence(capsys, "decompress", place / "people.ancestral", tmp_path / name, "--out", back)
    sentence(capsys, "decompress", place / "people.ancestral", place / "people.csv", "--out", back)
    assert "model" in sentence(capsys, "decompress", place / "digits.ancestral", small, "--out", back)
    assert "folder" in sentence(capsys, "decompress", place / "people.ancestral", place, "--out", back)
    assert not back.exists()


def test_options_that_do_not_suit(place, tmp_path, capsys):
    images, text = place / "digits.ancestral", place / "novel.ancestral"
    assert "--known" in sentence(capsys, "complete", images, place / "digits.npz")
    assert "--out" in sentence(capsys, "score", images, place / "digits.npz", "--per-site")
    assert ".npz" in sentence(capsys, "score", images, place / "digits.npz", "--out", tmp_path / "scores.doc")
    assert "running text" in sentence(capsys, "score", text, place / "novel.txt", "--order", "reverse")
    for option in ("--temperature=-1", "--temperature=nan", "--top-k=0", "--top-p=0", "--min-p=nan"):
        assert option[2:5] in sentence(capsys, "sample", text, option)
    assert "sex=Female" in sentence(capsys, "sample", place / "people.ancestral", "--given", "group")
    said = sentence(capsys, "complete", place / "people.ancestral", place / "gaps.csv", "--known", "top")
    assert "no column 'top'" in said
    said = sentence(capsys, "complete", place / "people.ancestral", place / "gaps.csv", "--point", "--draws", 3)
    assert "leave out --draws" in said
    assert "mask" in sentence(capsys, "complete", images, place / "digits.npz", "--known", tmp_path / "none.npy")
    np.save(tmp_path / "odd.npy", np.zeros((3, 3)))
    said = sentence(capsys, "complete", images, place / "digits.npz", "--known", tmp_path / "odd.npy")
    assert "(3, 3)" in said
    for name, grey in {"wide": np.full((8, 9), 255), "white": np.full((8, 8), 255)}.items():
        Image.fromarray(grey.astype(np.uint8)).save(tmp_path / f"{name}.png")
    said = sentence(capsys, "complete", images, place / "digits.npz", "--known", tmp_path / "wide.png")
    assert "8 x 9" in said and "8 x 8" in said and "wide.png" in said
    said = sentence(capsys, "complete", images, place / "digits.npz", "--known", tmp_path / "white.png")
    assert "all is known" in said
    assert "more than zero" in sentence(capsys, "quickstart", "--minutes", "0", "--out", tmp_path / "q")


def test_interrupts_and_surprises(place, capsys, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    def surprise(*arguments, **options):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("ancestral.api.load", interrupt)
    assert sentence(capsys, "info", place / "people.ancestral", code=130) == "interrupted"
    monkeypatch.setattr("ancestral.api.load", surprise)
    code, _, err = run(capsys, "info", place / "people.ancestral")
    assert code == 1 and "--trace" in err and err.count("\n") == 1
    with pytest.raises(ZeroDivisionError):
        cli.main(["info", "x", "--trace"])


def test_a_name_that_promises_other_data_is_refused(place, tmp_path, capsys):
    blob = tmp_path / "small.anc"
    assert run(capsys, "compress", place / "people.ancestral", place / "people.csv", "--out", blob)[0] == 0
    for kind, wrong in (("people", "rows.png"), ("people", "rows.jsonl"), ("digits", "a.csv"), ("digits", "a.txt")):
        said = sentence(capsys, "sample", place / f"{kind}.ancestral", "-n", "2", "--out", tmp_path / wrong)
        assert wrong in said and (".csv," in said or ".npz" in said)
    assert ".parquet" in sentence(capsys, "decompress", place / "people.ancestral", blob, "--out", tmp_path / "x.wav")
    assert list(tmp_path.iterdir()) == [blob]
    data = Images(np.zeros((2, 3, 3, 1), np.uint8))
    with pytest.raises(DataError, match=r"not written as a\.parquet"):
        write(data, tmp_path / "a.parquet")
    write(data, tmp_path / "release-1.2")
    assert sorted(p.name for p in (tmp_path / "release-1.2").iterdir()) == ["00000.png", "00001.png"]


def test_a_target_that_fails_midway_leaves_nothing(place, tmp_path, capsys, monkeypatch):
    whole = Images.png

    def broken(self, i):
        if i == 1:
            raise OSError(28, "No space left on device")
        return whole(self, i)

    monkeypatch.setattr(Images, "png", broken)
    code, _, err = run(capsys, "sample", place / "digits.ancestral", "-n", 2, "--out", tmp_path / "some")
    assert code != 0 and "No space left" in err
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    )
)
def test_literals_come_back(value):
    import json

    assert console.literal(json.dumps(value)) == value
    assert console.literal(repr(value)) == value


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_a_setting_or_a_sentence(text):
    try:
        found = console.settings([text])
    except DataError as error:
        assert "name=value" in str(error)
        assert not text.partition("=")[0].strip() or "=" not in text
    else:
        ((name, value),) = found.items()
        assert name == text.partition("=")[0].strip() and value == text.partition("=")[2]


def test_typed_settings_follow_their_defaults():
    assert console.typed("a", "[1,2]", (3,)) == (1, 2)
    assert console.typed("a", "(1, 2)", (3,)) == (1, 2)
    assert console.typed("a", "3", 0.5) == 3 and console.typed("a", "true", False) is True
    assert console.typed("a", "12", "text") == "12" and console.typed("a", "None", None) is None
    for text, default in (("true", 3), ("1.5", 3), ("x", 0.5), ("3", (1,)), ("1", False)):
        with pytest.raises(DataError):
            console.typed("a", text, default)
