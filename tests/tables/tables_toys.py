"""A small table of every kind of column, and a quickly fitted model of it."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd

import ancestral
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.tokenizers import Columns

TINY = dict(width=32, depth=2, heads=2, dropout=0.0)


def made(n: int = 400, seed: int = 0) -> pd.DataFrame:
    """Rows whose ``label`` and ``wide`` follow ``size``; a tenth of the colours are missing."""
    rng = np.random.default_rng(seed)
    colour = rng.choice(["red", "green", "blue"], n, p=[0.5, 0.3, 0.2])
    size = rng.integers(0, 10, n)
    wide = np.round(rng.normal(1000 * size, 400), 1)
    label = np.where(size > 4, "yes", "no")
    when = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 200, n), unit="D")
    frame = pd.DataFrame({"colour": colour, "size": size, "wide": wide, "when": when, "label": label})
    frame.loc[rng.random(n) < 0.1, "colour"] = None
    return frame


@functools.cache
def fitted() -> Model:
    """An any-order model of :func:`made`; one for all tests, which leave it alone."""
    return ancestral.fit(made(), recipe="any-order", steps=150, quiet=True, **TINY)


@functools.cache
def fitted_in_one_order() -> Model:
    """A model of :func:`made` that knows the order of its columns only."""
    model = Model(Columns(), "raster", CausalTransformer(32, 1, 2), Categorical())
    return model.fit(made(), steps=30, quiet=True)
