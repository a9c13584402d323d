"""Choosers that write values to a range coder, and read them back.

Range coding (Martin 1979, "Range encoding"; the implementation is constriction: Bamler 2022, arXiv:2201.01741)
spends ``-log2 p`` bits per value and some 32 bits per stream. Probabilities are rounded to multiples of 2^-24;
every category keeps at least 2^-24, so that an impossible category costs the others next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import constriction
import numpy as np
import torch
from torch import Tensor

from ancestral.errors import StreamError, UnsupportedError
from ancestral.heads.base import Chooser, Finite, Leaf

REAL_VALUES = (
    "this model's values are real numbers, and a density cannot be coded losslessly; quantise the data and use a "
    "recipe with a categorical or logistic head, or compress the files with a general tool such as xz"
)
OTHER_NUMBERS = (
    "the stream cannot be decoded here because this computer or torch version computes other probabilities than "
    "the one that wrote it; decode it with the torch version, device and kind of processor it was written with"
)

FAMILY = constriction.stream.model.Categorical(lazy=True, perfect=False)
_CHUNK = 1 << 22
"""Probabilities that are handed to the coder at a time: bounds the memory of large sets over large alphabets."""


def probability_rows(leaf: Leaf, alive: Tensor | None) -> Iterator[np.ndarray]:
    """Probabilities of the sites that count, float32 ``[n, K]`` a piece, in row-major order of ``[B, S]``.

    Encoder, decoder and probe all call this, so that they see the same numbers to the bit.

    Raises:
        UnsupportedError: real values, or logits that are not numbers.
    """
    if not isinstance(leaf, Finite):
        raise UnsupportedError(REAL_VALUES)
    logits = leaf.logits.reshape(-1, leaf.logits.shape[-1]) if alive is None else leaf.logits[alive]
    for part in logits.split(max(1, _CHUNK // max(logits.shape[-1], 1))):
        probs = torch.softmax(part.float(), -1)
        if not bool(torch.isfinite(probs.sum())):
            raise UnsupportedError(
                "the model gives probabilities that are not numbers, so nothing can be coded with it; train it again"
            )
        yield probs.cpu().numpy()


def _blank(values: Tensor, alive: Tensor | None) -> Tensor:
    return values if alive is None else torch.where(alive, values, 0)


class Encode:
    """Writes the given values; :meth:`words` is the result."""

    def __init__(self) -> None:
        self.coder = constriction.stream.queue.RangeEncoder()

    def __call__(self, leaf: Leaf, given: Tensor | None, alive: Tensor | None) -> Tensor:
        assert given is not None, "encoding needs the values"
        chosen = given.reshape(-1) if alive is None else given[alive]
        symbols, at = chosen.to(torch.int32).cpu().numpy(), 0
        for probs in probability_rows(leaf, alive):
            if probs.shape[1] > 1 and len(probs):  # a single category needs no code
                self.coder.encode(symbols[at : at + len(probs)], FAMILY, probs)
            at += len(probs)
        return _blank(given, alive)

    def words(self) -> bytes:
        """The code, little-endian 32-bit words."""
        return self.coder.get_compressed().astype("<u4").tobytes()


class Decode:
    """Reads values back from what :class:`Encode` wrote.

    Args:
        words: the code.
    """

    def __init__(self, words: bytes):
        self.coder = constriction.stream.queue.RangeDecoder(np.frombuffer(words, "<u4").astype(np.uint32))

    def __call__(self, leaf: Leaf, given: Tensor | None, alive: Tensor | None) -> Tensor:
        assert isinstance(leaf, Finite), REAL_VALUES
        found = []
        for probs in probability_rows(leaf, alive):
            if probs.shape[1] > 1 and len(probs):
                try:
                    found.append(self.coder.decode(FAMILY, probs))
                except AssertionError as error:  # no value has this code: the encoder's numbers were others
                    raise StreamError(OTHER_NUMBERS) from error
            else:
                found.append(np.zeros(len(probs), np.int32))
        device = leaf.logits.device
        symbols = torch.from_numpy(np.concatenate(found)).to(device, torch.int64)
        if alive is None:
            return symbols.reshape(leaf.logits.shape[:2])
        out = torch.zeros(leaf.logits.shape[:2], dtype=torch.int64, device=device)
        out[alive] = symbols
        return out


class Aligned:
    """Shows another chooser one column of a table of values per step, and which rows have not ended yet.

    For sequences of several lengths side by side, drawn one site at a time.

    Args:
        chooser: decides.
        left: int64 ``[B]``, columns that every row still has.
        truth: int64 ``[B, columns]``, or None if the chooser knows how to do without.
    """

    def __init__(self, chooser: Chooser, left: Tensor, truth: Tensor | None = None):
        self.chooser, self.left, self.truth, self.column = chooser, left, truth, 0

    def __call__(self, leaf: Leaf, given: Tensor | None, alive: Tensor | None) -> Tensor:
        live = (self.column < self.left)[:, None]
        shown = None if self.truth is None else self.truth[:, self.column : self.column + 1]
        self.column += 1
        return self.chooser(leaf, shown, None if bool(live.all()) else live)


class Reporting:
    """Tells ``progress(done, total)`` how many scalars another chooser has decided."""

    def __init__(self, chooser: Chooser, total: int, progress: Callable[[int, int], None]):
        self.chooser, self.total, self.progress, self.done = chooser, total, progress, 0

    def __call__(self, leaf: Leaf, given: Tensor | None, alive: Tensor | None) -> Tensor:
        chosen = self.chooser(leaf, given, alive)
        self.done += chosen.numel() if alive is None else int(alive.sum())
        self.progress(self.done, self.total)
        return chosen


def reporting(chooser: Chooser, total: int, progress: Callable[[int, int], None] | None) -> Chooser:
    """``chooser``, wrapped in :class:`Reporting` if anybody listens."""
    return chooser if progress is None else Reporting(chooser, total, progress)
