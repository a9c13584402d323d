"""Fitting that begins with an earlier model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import ancestral
from ancestral.cli import main
from ancestral.data import Images
from ancestral.errors import DataError, UnsupportedError
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.recipes.registry import find
from ancestral.tokenizers import Pixels

SMALL: dict[str, Any] = dict(recipe="pixelcnn", width=8, depth=1, dropout=0.0)
BRIEF: dict[str, Any] = dict(quiet=True, validation=0)


def stripes(n: int, seed: int = 0, classes: tuple[str, str] = ("across", "down")) -> Images:
    """Striped images of 4 x 4 pixels, three grey levels, two classes."""
    random = np.random.default_rng(seed)
    down = random.integers(0, 2, n)
    pixels = np.zeros((n, 4, 4), np.uint8)
    pixels[:, ::2] = random.integers(1, 3, (n, 1, 1))
    pixels[down == 1] = pixels[down == 1].transpose(0, 2, 1)
    labels = down if classes[0] == "across" else 1 - down
    return Images.read(pixels, labels, list(classes), levels=3)


@pytest.fixture(scope="module")
def first() -> Model:
    return ancestral.fit(stripes(200), steps=60, **SMALL, **BRIEF)


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.generator.state_dict().items()}


def test_training_goes_on_from_the_weights(first: Model, tmp_path: Path) -> None:
    before, test = weights(first), stripes(40, seed=1)
    first.save(tmp_path / "first.ancestral")
    barely: dict[str, Any] = dict(steps=1, lr=1e-9, **BRIEF)
    for start in (first, tmp_path / "first.ancestral"):
        again = ancestral.fit(stripes(16, seed=2), start=start, **barely)
        assert again.config == first.config and again.recipe is first.recipe
        np.testing.assert_allclose(again.log_prob(test), first.log_prob(test), atol=1e-3)
    further = ancestral.fit(stripes(16, seed=2), start=first, steps=8, **BRIEF)
    anew = ancestral.fit(stripes(16, seed=2), steps=8, **SMALL, **BRIEF)
    assert np.mean(further.log_prob(test)) > np.mean(anew.log_prob(test)) + 1
    assert all(torch.equal(v, before[k]) for k, v in first.generator.state_dict().items())
    assert again.tokenizer is not first.tokenizer


def test_arguments_that_leave_the_shapes_alone_can_change(first: Model) -> None:
    changed = ancestral.fit(stripes(16), start=first, dropout=0.3, augment=0.5, steps=1, **BRIEF)
    assert changed.config == {**first.config, "dropout": 0.3, "augment": 0.5}


def test_classes_are_matched_by_name(first: Model) -> None:
    """The same images, their classes numbered the other way round, teach the same."""
    same, turned = stripes(64, seed=3), stripes(64, seed=3, classes=("down", "across"))
    assert (same.pixels == turned.pixels).all() and (same.labels != turned.labels).all()
    one, other = (ancestral.fit(part, start=first, steps=3, **BRIEF) for part in (same, turned))
    assert other.tokenizer.classes == ("across", "down")
    assert all(torch.equal(v, other.generator.state_dict()[k]) for k, v in one.generator.state_dict().items())
    with pytest.raises(DataError, match="the class 'up', which is none of the model's"):
        ancestral.fit(stripes(16, classes=("up", "down")), start=first, steps=1, **BRIEF)
    held = stripes(32, seed=4, classes=("down", "across"))
    options: dict[str, Any] = dict(steps=3, eval_every=3, quiet=True)
    told = [ancestral.fit(same, start=first, validation=v, **options) for v in (held, stripes(32, seed=4))]
    assert told[0].history.best_loss == told[1].history.best_loss  # type: ignore[union-attr]


def test_what_does_not_fit_is_refused_in_a_sentence(first: Model, tmp_path: Path) -> None:
    few = stripes(16)

    def refused(match: str, start: Any = first, data: Any = few, **options: Any) -> None:
        with pytest.raises(DataError, match=match):
            ancestral.fit(data, start=start, steps=1, **BRIEF, **options)

    refused("is of recipe pixelcnn, and its weights fit no nade", recipe="nade")
    refused(r"do not fit this model: width=8 there, width=16 here; leave out", width=16)
    refused("width=8 there, width=4 here and members=1 there, members=2 here", width=4, members=2)
    refused("there is no option widht=", widht=3)
    refused("leave out tokenizer=", tokenizer=first.tokenizer)
    refused("leave out tokenizer_training=", tokenizer_training={"steps": 1})
    refused("4x4x1", data=np.zeros((9, 5, 5), np.uint8))
    refused("image 0 has the value 7 where the model knows grey levels 0 to 2", data=np.full((9, 4, 4), 7, np.uint8))
    refused("not a saved model", start=tmp_path)
    refused("cannot start from an earlier model", data=pd.DataFrame({"k": [1], "t": [1]}), key="k", time="t")
    coarse = ancestral.fit(few, start=first, steps=1, **BRIEF).quantise(8, group=4, smallest=1)
    refused("quantised", start=coarse)
    with pytest.raises(UnsupportedError, match="has not seen any data"):
        ancestral.fit(few, start=Model(Pixels(), "raster", CausalTransformer(8, 1, 2), Categorical()))


def test_models_composed_by_hand_start_from_their_like() -> None:
    def composed(width: int) -> Model:
        return Model(Pixels(), "raster", CausalTransformer(width, 1, 2), Categorical())

    one = composed(8).fit(stripes(32), steps=2, **BRIEF)
    two = composed(8).fit(stripes(32), start=one, steps=1, lr=1e-9, **BRIEF)
    np.testing.assert_allclose(two.log_prob(stripes(5)), one.log_prob(stripes(5)), atol=1e-3)
    with pytest.raises(DataError, match=r"network\.\S+ is \(.*\) there, \(.*\) here"):
        composed(16).fit(stripes(32), start=one, steps=1, **BRIEF)
    with pytest.raises(UnsupportedError, match="composed by hand"):
        ancestral.fit(stripes(32), start=one, steps=1, **BRIEF)


def test_vocabularies_and_columns_stay_the_same() -> None:
    """New text and rows are read with the earlier tokenizer; what it does not know is refused."""
    size: dict[str, Any] = dict(width=16, depth=1, heads=2)
    text = ancestral.fit(["so it goes, and so on. " * 20], recipe="gpt", length=16, steps=2, **size, **BRIEF)
    more = ancestral.fit(["and so it goes on. " * 20], start=text, steps=1, **BRIEF)
    assert more.tokenizer.state() == text.tokenizer.state()
    frame = pd.DataFrame({"a": ["x", "y"] * 20, "b": [1, 2, 3, 4] * 10})
    rows = ancestral.fit(frame, recipe="any-order", steps=2, **size, **BRIEF)
    fewer = ancestral.fit(frame[frame.a == "x"], start=rows, steps=1, **BRIEF)
    assert fewer.tokenizer.state() == rows.tokenizer.state()
    tunes = ancestral.fit([["c", "d"], ["d", "e"]] * 8, recipe="any-order", steps=2, **size, **BRIEF)
    with pytest.raises(DataError, match="'f'"):
        ancestral.fit([["c", "f"]] * 8, start=tunes, steps=1, **BRIEF)


def test_learned_tokenizers_are_not_trained_again() -> None:
    images = Images.read(np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8))
    codes = ancestral.fit(images, recipe="llamagen", steps=2, **find("llamagen").tiny, **BRIEF)
    more = ancestral.fit(images, start=codes, steps=1, **BRIEF)
    for name, tensor in codes.tokenizer.tensors().items():
        assert torch.equal(tensor, more.tokenizer.tensors()[name])


def test_a_killed_run_goes_on_as_if_it_had_not_been(first: Model, tmp_path: Path) -> None:
    data = stripes(40, seed=5)
    options: dict[str, Any] = dict(start=first, save_every=2, log_every=1, **BRIEF)

    def kill(row: Any, training: Any) -> None:
        if training.step == 5:
            raise RuntimeError("killed")

    straight = ancestral.fit(data, steps=6, **options)
    model = find("pixelcnn")(**first.config)
    with pytest.raises(RuntimeError, match="killed"):
        model.fit(data, steps=6, checkpoint=tmp_path / "run", callbacks=(kill,), **options)
    resumed = ancestral.fit(data, steps=6, checkpoint=tmp_path / "run", **options)
    assert resumed.history.resumed_from == 4  # type: ignore[union-attr]
    for name, tensor in straight.generator.state_dict().items():
        assert torch.equal(tensor, resumed.generator.state_dict()[name])


def test_on_the_command_line(first: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first.save(tmp_path / "first.ancestral")
    stripes(24).save(tmp_path / "more.npz")
    said = [str(tmp_path / "more.npz"), "--start", str(tmp_path / "first.ancestral"), "--steps", "1", "--quiet"]
    out = ["--out", str(tmp_path / "second.ancestral")]
    assert main(["fit", *said, *out, "--set", "dropout=0.2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == "pixelcnn"
    assert ancestral.load(tmp_path / "second.ancestral").config["dropout"] == 0.2
    for wrong in (["--recipe", "nade"], ["--set", "width=16"]):
        assert main(["fit", *said, "--out", str(tmp_path / "third"), *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "third").exists()
