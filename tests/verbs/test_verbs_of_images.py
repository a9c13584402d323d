"""Inpainting, outpainting, editing by class and super-resolution, with every system of images that can."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ancestral.cli import main
from ancestral.data import Images
from ancestral.decoding.decoders import Ancestral
from ancestral.errors import DataError, UnsupportedError
from ancestral.model import Model
from ancestral.recipes.registry import catalogue
from ancestral.recipes.toys import toy
from ancestral.tokenizers import Pixels
from ancestral.tokenizers.learned import Autoencoder

SYSTEMS = [name for name, record in catalogue().items() if record.modality == "image"]
NO_PARTS = ("jpeg-lm", "wavelet-ar")
"""Their values are no parts of the picture."""


def built(name: str, data: Images | None = None, **options: Any) -> tuple[Model, Images]:
    record = catalogue()[name]
    data = toy(record.toy) if data is None else data  # type: ignore[assignment]
    return record(**{**record.tiny, **options}).build(data), data  # type: ignore[return-value]


@pytest.mark.parametrize("name", SYSTEMS)
def test_known_pixels_never_change(name: str) -> None:
    """A hole is filled, a border drawn, and a class drawn into them, with guidance."""
    model, data = built(name)
    height, width = data.pixels.shape[1:3]
    few = data.take(slice(0, 3))
    hole, border, each = (np.ones((3, height, width), bool) for _ in range(3))
    hole[:, height // 2 - 1, width // 2 - 1 : width // 2 + 1] = False
    border[:, :, width // 2 :] = False
    each[[0, 1, 2], [0, 0, height - 1], [0, width - 1, 0]] = False
    if name in NO_PARTS:
        with pytest.raises(UnsupportedError, match="no parts of a picture"):
            model.complete(few, known=hole)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # untrained models explain little by few candidates
        for mask in (hole, border, each):
            for told in ({}, {"label": [0, 1, 1], "guidance": 1.5, "decoder": Ancestral()}):
                done = model.complete(few, known=mask, draws=2, particles=4, as_dataset=True, **told)
                both = np.repeat(mask, 2, 0)
                assert (done.pixels[both] == np.repeat(few.pixels, 2, 0)[both]).all()
                assert done.pixels.shape == (6, *few.pixels.shape[1:])


@pytest.mark.parametrize("name", SYSTEMS)
def test_likelihoods_say_what_they_are(name: str) -> None:
    model, data = built(name)
    score = model.log_prob(data.take(slice(0, 2)))
    lossy = not model.tokenizer.lossless
    assert score.of == ("items" if not lossy else "codes" if model.space.discrete else "latents")
    wanted = {"mar": "lower_bound", "flowar": "estimate", "xar": "estimate"}.get(name, "exact")
    assert score.kind == wanted


def smooth(n: int, side: int = 16) -> Images:
    """Images of one gradient each."""
    random = np.random.default_rng(0)
    x = np.linspace(0, 1, side)
    slopes = random.uniform(-1, 1, (n, 2))
    grey = 0.5 + 0.5 * (slopes[:, :1, None] * (x[:, None] - 0.5) + slopes[:, 1:, None] * (x[None] - 0.5))
    return Images((grey * 255).round().astype(np.uint8)[..., None])


@pytest.mark.parametrize("name", ["var", "imagefolder", "flowar"])
def test_small_images_are_refined(name: str) -> None:
    """Super-resolution: the coarser maps are those of the small image, the finer ones are drawn."""
    options = {} if name == "flowar" else {"scales": (1, 2, 4)}
    model, data = built(name, smooth(40), patch=4, channels=16, **options)
    assert isinstance(model.tokenizer, Autoencoder)
    few = data.take(slice(0, 3))
    small = Images(few.pixels.reshape(3, 8, 2, 8, 2, 1).mean((2, 4)).round().astype(np.uint8))
    done, how = model.complete(small, known="coarse", draws=2, details=True)
    assert done.shape == (6, 16, 16) and how.method == "prefix"
    _, values, known = model.tokenizer.coarse(small)
    assert known[0].tolist() == [True] * 5 + [False] * 16
    assert torch.equal(how.values[:, :5], values.repeat_interleave(2, 0)[:, :5])
    assert not torch.equal(how.values[::2, 5:], how.values[1::2, 5:])
    with pytest.raises(Exception, match="same proportions"):
        model.complete(few, known="coarse")
    with pytest.raises(Exception, match="too small"):
        model.complete(Images(small.pixels[:, :2, :2]), known="coarse")


def test_other_systems_refine_nothing() -> None:
    for name in ("llamagen", "maskgit"):
        model, data = built(name)
        with pytest.raises(UnsupportedError, match="var, flowar or imagefolder"):
            model.complete(data.native()[:1, :1, :1], known="coarse")
        assert isinstance(model.tokenizer, Pixels | Autoencoder)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mask image, halves of what has no grid of sites, small images, and a caption."""
    data = smooth(20)
    data.caption([f"a slope {'up' if i % 2 else 'down'}" for i in range(20)])
    model, _ = built("var", data, patch=4, scales=(1, 2, 4), channels=16)
    model.save(tmp_path / "model")
    few = Images(data.pixels[:2])
    few.save(tmp_path / "few.npz")
    mask = np.full((1, 16, 16, 1), 255, np.uint8)
    mask[:, 4:12, 4:12] = 0
    Images(mask).save(tmp_path / "mask.png")

    def run(*words: str) -> Images:
        assert main([*words, "--out", str(tmp_path / "out.npz"), "--seed", "1"]) == 0
        return Images.read(tmp_path / "out.npz")

    place = str(tmp_path / "model")
    done = run("complete", place, str(tmp_path / "few.npz"), "--known", str(tmp_path / "mask.png"))
    shown = mask[0, ..., 0] > 0
    assert (done.pixels[:, shown] == few.pixels[:, shown]).all()
    done = run("complete", place, str(tmp_path / "few.npz"), "--known", "top", "--caption", "a slope up")
    assert (done.pixels[:, :8] == few.pixels[:, :8]).all()
    Images(few.pixels[:, ::2, ::2]).save(tmp_path / "small.npz")
    done = run("complete", place, str(tmp_path / "small.npz"), "--known", "coarse", "--draws", "3")
    assert done.pixels.shape == (6, 16, 16, 1)
    done = run("sample", place, "-n", "2", "--caption", "a slope up", "--guidance", "1")
    assert done.pixels.shape == (2, 16, 16, 1)
    assert main(["sample", place, "--caption", "x", "--guidance", "nan-o"]) != 0
    capsys.readouterr()


def test_what_says_nothing_of_the_class_is_refused() -> None:
    model, _ = built("llamagen")
    with pytest.raises(DataError, match="no scale"):
        model.sample(1, label=0, guidance=float("nan"))
    with pytest.raises(DataError, match="no items whose own label"):
        model.sample(1, label=True)
    with pytest.raises(DataError, match="there is no class 'nine'"):
        model.sample(1, label="nine")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"n": 2.5}, "n=2.5 must be a whole number"),
        ({"n": "3"}, "n='3' must be a whole number"),
        ({"n": -1}, "cannot draw -1 items"),
        ({"seed": 1.5}, "seed=1.5 must be a whole number"),
        ({"first": "a"}, "first='a' must be a whole number"),
        ({"top_k": 2.5}, "top_k=2.5 must be a whole number"),
        ({"temperature": "hot"}, "temperature='hot' must be a number"),
        ({"guidance": "1", "label": 0}, "guidance='1' must be a number"),
        ({"temprature": 1.0}, "no option temprature= .did you mean temperature"),
        ({"draws": 3}, "no option draws="),
    ],
)
def test_arguments_of_drawing_are_checked(wrong: dict[str, Any], said: str) -> None:
    model, data = built("any-order")
    with pytest.raises(DataError, match=said):
        model.sample(**wrong)
    if not {"n", "first", "draws"} & set(wrong):
        known = np.ones(data.pixels.shape[1:3], bool)
        with pytest.raises(DataError, match=said):
            model.complete(data, known=known, **wrong)


def test_numbers_of_numpy_are_numbers() -> None:
    model, _ = built("any-order")
    drawn = model.sample(np.int64(2), seed=np.int64(1), temperature=np.float32(1.0), top_k=np.int64(2))
    assert (drawn == model.sample(2, seed=1, top_k=2)).all()
