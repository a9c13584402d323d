"""Tokenizers by name, under any prior."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ancestral
from ancestral.data import Images
from ancestral.errors import DataError, UnsupportedError
from ancestral.tokenizers import Autoencoder, Tokenizer
from ancestral.tokenizers.learned import Product, Query
from ancestral.tokenizers.named import kinds, named


def pictures(n: int = 12) -> Images:
    shade = np.random.default_rng(0).integers(0, 200, (n, 1, 1, 1))
    return Images((shade + np.arange(8)[:, None, None] * 5 + np.zeros((8, 8, 1))).astype(np.uint8))


def test_the_fixed_and_the_learned_have_names() -> None:
    wanted = {"pixels", "dct", "wavelet-planes", "jpeg-bytes", "vq", "fsq", "lfq", "residual-vq", "multi-scale-vq"}
    assert wanted | {"kl", "bins", "query"} <= set(kinds())
    for name in kinds():
        assert isinstance(named(name), Tokenizer)
    branches: Any = named("vq:codes=8,width=2+vq:codes=8,width=2")
    assert isinstance(branches.quantiser, Product) and branches.quantiser.width == 4
    pyramid: Any = named("multi-scale-vq:scales=[1,2,4],codes=8")
    assert pyramid.quantiser.state()["scales"] == [1, 2, 4] and pyramid.quantiser.state()["codes"] == 8
    line: Any = named("query:tokens=5")
    assert isinstance(line, Autoencoder) and isinstance(line.backbone, Query) and line.backbone.tokens == 5
    assert named("nothing") is None and named("photos/tokenizer") is None


@pytest.mark.parametrize("name", ["pixels", "dct:bins=16", "wavelet-planes:planes=2", "jpeg-bytes", "fsq:levels=[3,3]"])
def test_a_prior_takes_a_tokenizer_by_name(name: str, tmp_path: Any) -> None:
    tiny: dict[str, Any] = {"width": 16, "depth": 1, "heads": 2, "steps": 1, "quiet": True, "batch_size": 4}
    model = ancestral.fit(pictures(), recipe="rar", tokenizer=name, **tiny)
    assert type(model.tokenizer) is type(named(name))
    model.save(tmp_path / "m")
    assert np.array_equal(ancestral.load(tmp_path / "m").sample(2), model.sample(2))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dtc", "did you mean dct"),
        ("dct:bin=3", "takes bins, step"),
        ("dct:bins=many", "no number"),
        ("dct:bins=1", "at least two"),
        ("fsq:levels=3", "no list"),
        ("vq+dct", "joins others than quantisers"),
    ],
)
def test_what_names_nothing_is_refused(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        ancestral.fit(pictures(), recipe="rar", tokenizer=text, width=16, depth=1, steps=1, quiet=True)


def test_a_mixture_of_normals_says_that_it_cannot_be_guided() -> None:
    """Latents under a prior that takes any values: the head is then a density."""
    images = pictures()
    images.labels, images.classes = np.arange(len(images)) % 2, ("a", "b")
    tiny: dict[str, Any] = {"width": 16, "depth": 1, "steps": 1, "quiet": True, "batch_size": 4, "dropout": 0.0}
    model = ancestral.fit(images, recipe="any-order", tokenizer="kl:width=2", **tiny)
    assert model.log_prob(images).of == "latents"
    with pytest.raises(UnsupportedError, match="guidance"):
        model.sample(1, label="a", guidance=1.0)


@pytest.mark.parametrize("text", ["vq:codes=0", "lfq:bits=0", "kl:width=0", "residual-vq:depth=0", "bins:width=0"])
def test_nothing_is_made_of_nothing(text: str) -> None:
    with pytest.raises(DataError, match="must be at least 1"):
        named(text)
