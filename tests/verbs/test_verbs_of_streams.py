"""The verbs of models of streams: what has no meaning there is refused, not ignored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ancestral
from ancestral import Model
from ancestral.errors import UnsupportedError

TEXTS = ["abc" * 20, "cab" * 15]


@pytest.fixture(scope="module")
def model() -> Model:
    size = dict(width=16, depth=1, heads=2, length=8)
    return ancestral.fit(TEXTS, recipe="gpt", steps=2, quiet=True, validation=0, **size)


@pytest.mark.parametrize(
    ("verb", "option"),
    [
        *(("sample", o) for o in ({"order": "raster"}, {"guidance": 1.0}, {"label": 0})),
        *(("log_prob", o) for o in ({"order": "raster"}, {"bound": 2}, {"label": 1})),
        *(("complete", o) for o in ({"order": "raster"}, {"guidance": 1.0}, {"label": 0})),
        ("complete", {"known": np.ones(8, bool)}),
    ],
    ids=str,
)
def test_what_has_no_meaning_is_refused(model: Model, verb: str, option: dict) -> None:
    first = () if verb == "sample" else (TEXTS,)
    with pytest.raises(UnsupportedError, match=f"{next(iter(option))}= is not for gpt on streams") as caught:
        getattr(model, verb)(*first, **option)
    assert "\n" not in str(caught.value)


def test_terms_of_every_symbol(model: Model) -> None:
    scores = model.log_prob(TEXTS, per_site=True)
    assert scores.per_site is not None and scores.per_site.shape == (2, 60)
    np.testing.assert_allclose(scores.per_site.sum(1), np.asarray(scores), rtol=1e-12)
    assert (scores.per_site[0] < 0).all() and (scores.per_site[1, 45:] == 0).all()
    # The first window is scored in one piece, from nothing.
    window = torch.tensor([list(TEXTS[0].encode()[:8])])
    direct = model.generator.log_prob(window).double().detach().numpy()
    np.testing.assert_allclose(scores.per_site[0, :8], direct[0], rtol=1e-5)
    assert model.log_prob(TEXTS).per_site is None
