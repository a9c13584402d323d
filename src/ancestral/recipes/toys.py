"""Data small enough that every possible item can be counted: what the laws run on."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ancestral.data import Dataset, Images, Sequences, Table, Text
from ancestral.errors import DataError
from ancestral.order import Order
from ancestral.space import Space


def _chain(n: int, sites: int, levels: int, labels: np.ndarray | None, seed: int, copy: float = 0.6) -> np.ndarray:
    """Dependent symbols ``[n, sites]``: each copies the one before with chance ``copy``, shifted by the label."""
    random = np.random.default_rng(seed)
    fresh = random.choice(levels, size=(n, sites), p=np.arange(1, levels + 1) / (levels * (levels + 1) / 2))
    if labels is not None:
        fresh = (fresh + labels[:, None]) % levels
    for site in range(1, sites):
        copied = random.random(n) < copy
        fresh[copied, site] = fresh[copied, site - 1]
    return fresh


def _grid(n: int, seed: int, height: int = 2, width: int = 2, levels: int = 3, channels: int = 1) -> Images:
    labels = np.random.default_rng(seed + 1).integers(0, 2, n)
    pixels = _chain(n, height * width * channels, levels, labels, seed).astype(np.uint8)
    return Images(pixels.reshape(n, height, width, channels), labels=labels, levels=levels)


def _tokens(n: int, seed: int, length: int = 3) -> Sequences:
    random = np.random.default_rng(seed)
    labels = np.random.default_rng(seed + 1).integers(0, 2, n)
    rows, sizes = _chain(n, length, 3, labels, seed), random.integers(1, length + 1, n)
    items = [["abc"[symbol] for symbol in row[:size]] for row, size in zip(rows, sizes, strict=True)]
    items[0] = ["a", "b", "c"]
    return Sequences(items, labels=labels)


def _text(n: int, seed: int) -> Text:
    random = np.random.default_rng(seed)
    rows = _chain(n, 12, 4, None, seed, 0.5)
    return Text(["".join("abc\n"[k] for k in row[:size]) for row, size in zip(rows, random.integers(5, 13, n))])


def _table(n: int, seed: int) -> Table:
    codes = _chain(n, 3, 2, None, seed, 0.7)
    frame = pd.DataFrame(
        {
            "sex": np.where(codes[:, 0] == 1, "Female", "Male"),
            "smoker": np.where(codes[:, 1] == 1, "yes", "no"),
            "ward": np.array(["east", "north", "west"])[(codes[:, 2] + (np.arange(n) % 5 == 0)) % 3],
        }
    )
    return Table.read(frame)


TOYS: dict[str, Callable[[int, int], Dataset]] = {
    "grid": lambda n, seed: _grid(n, seed),
    "bits": lambda n, seed: _grid(n, seed, levels=2),
    "grid4": lambda n, seed: _grid(n, seed, 4, 4, levels=2),
    "wide": lambda n, seed: _grid(n, seed, 2, 4, levels=2),
    "colours": lambda n, seed: _grid(n, seed, levels=2, channels=2),
    "tokens": _tokens,
    "text": _text,
    "table": _table,
}
"""Toy data by name: "grid" 2 x 2 images of 3 levels, "bits" of 2, "grid4" 4 x 4 of 2, "wide" 2 x 4 of 2, "colours"
2 x 2 of 2 channels, "tokens" sequences of one to three symbols, all with two classes; "text" lines of a few letters;
"table" three columns."""


def toy(name: str, n: int = 256, seed: int = 0) -> Dataset:
    """``n`` items of the toy data ``name``; the sites depend on each other and on the label.

    Raises:
        DataError: no such toy data.
    """
    if name not in TOYS:
        raise DataError(f"there are no toy data {name!r}; choose {', '.join(TOYS)}")
    return TOYS[name](n, seed)


def enumerate_values(space: Space, order: Order | None = None, most: int = 1 << 17) -> Tensor:
    """Every values tensor of a discrete space: int64 ``[M, N, *event]``.

    Where an order is given in which a stop symbol ends the sequence (raster), only sequences padded with it are
    counted, since what follows the stop symbol has no probability of its own.

    Args:
        space: with finitely many values.
        order: the order under which the items will be scored.
        most: largest M.

    Raises:
        DataError: real values, or too many.
    """
    if not space.discrete:
        raise DataError("real values cannot be enumerated")
    per_site = int(np.prod(space.event, dtype=np.int64))
    sizes = [int(k) for k in space.site_sizes() for _ in range(per_site)]
    total = int(np.prod(np.array(sizes, dtype=np.float64)))
    if total > most:
        raise DataError(f"{total} values are too many to enumerate (at most {most}); take smaller toy data")
    flat = torch.tensor(list(itertools.product(*map(range, sizes))), dtype=torch.int64)
    values = flat.reshape(len(flat), space.n, *space.event)
    if space.stop is not None and not space.event and (order is None or order.is_raster):
        stopped = (values == space.stop).long()
        behind = stopped.cumsum(1) - stopped > 0
        values = values[((values == space.stop) | ~behind).all(1)]
    return values
