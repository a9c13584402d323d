"""Counts of strings: a table of a training stream in flat arrays, and what a new stream adds to it as it goes.

The chances of the next symbol are those of interpolated Kneser-Ney smoothing with three discounts (Chen and Goodman
1999, "An empirical study of smoothing techniques for language modeling"): a context of ``k`` symbols gives every
symbol seen behind it its count less a discount, and what was taken off to the distribution behind its last ``k - 1``
symbols, whose counts are of distinct longer strings rather than of occurrences. On symbols of the stream itself the
counts go on, so that the chances adapt, as in prediction by partial matching (Cleary and Witten 1984).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DISCOUNTED = 3
"""Counts of 1, 2, and this or more have discounts of their own."""

_MARGIN = 0.05

Node = tuple[list[int], list[int], list[int]]
"""Symbols seen behind a context, how often, and behind how many distinct longer contexts."""


@dataclass(frozen=True)
class StringCounts:
    """All strings of up to ``order + 1`` symbols of a stream, with their counts.

    Strings are numbered by length, then by the number of the string without its last symbol, then by that symbol;
    string 0 is the empty one. Children of a string are therefore next to each other.

    Attributes:
        alphabet: number of symbols K.
        order: longest context.
        key: int64 ``[S]``, ascending: number of the string without its last symbol, times K, plus that symbol.
        seen: int32 ``[S]``, occurrences.
        distinct: int32 ``[S]``, distinct strings that are one symbol longer to the left; the start of the stream
            counts as such a symbol. For the longest strings the same as ``seen``.
        begin: int64 ``[S + 1]``, first child of every string.
        discounts: float64 ``[2, order + 1, 4]``: what is taken off a count of 0, 1, 2, and 3 or more, of ``seen`` and
            of ``distinct``, by the length of the context.
    """

    alphabet: int
    order: int
    key: np.ndarray
    seen: np.ndarray
    distinct: np.ndarray
    begin: np.ndarray
    discounts: np.ndarray

    @classmethod
    def of(cls, stream: np.ndarray, alphabet: int, order: int) -> StringCounts:
        """Count a stream, integers ``[T]``, in time ``O(order * T log T)``."""
        values = np.asarray(stream, np.int64)
        keys, seen = [np.full(1, -1, np.int64)], [np.full(1, len(values), np.int32)]
        distinct: list[np.ndarray] = []
        ends = np.zeros(len(values) + 1, np.int64)  # the string that ends before every position, of growing length
        first = 1
        for length in range(1, order + 2):
            # Strings of this length end at positions length - 1, length, ...
            found, where, ids, counts = np.unique(
                ends[:-1] * alphabet + values[length - 1 :],
                return_index=True,
                return_inverse=True,
                return_counts=True,
            ) if len(ends) > 1 else (np.zeros(0, np.int64),) * 4  # fmt: skip
            # Without their first symbol they are the strings of the level before that end at the same places.
            shorter = ends[1:][where] - (first - len(keys[-1]))
            left = np.bincount(shorter, minlength=len(keys[-1]))
            if len(ends) > 0 and length > 1:
                left[ends[0] - (first - len(keys[-1]))] += 1
            distinct.append(left.astype(np.int32))
            keys.append(found)
            seen.append(counts.astype(np.int32))
            ends = ids + first
            first += len(found)
        distinct.append(seen[-1])
        key = np.concatenate(keys)
        begin = np.searchsorted(key, np.arange(len(key) + 1) * alphabet)
        sizes = [len(k) for k in keys]
        discounts = np.stack([[_discounts(c) for c in seen[1:]], [_discounts(c) for c in distinct[1:]]])
        assert sum(sizes) == len(begin) - 1
        return cls(alphabet, order, key, np.concatenate(seen), np.concatenate(distinct), begin, discounts)

    def children(self, parents: np.ndarray, symbol: int) -> np.ndarray:
        """Numbers of the strings ``parents`` with a symbol added, int64; -1 where the stream does not have them."""
        wanted = parents * self.alphabet + symbol
        place = np.minimum(np.searchsorted(self.key, wanted), len(self.key) - 1)
        return np.where((parents >= 0) & (self.key[place] == wanted), place, -1)

    def node(self, string: int) -> Node:
        """What was seen behind a string."""
        a, b = self.begin[string], self.begin[string + 1]
        symbols = self.key[a:b] - string * self.alphabet
        return symbols.tolist(), self.seen[a:b].tolist(), self.distinct[a:b].tolist()


def _discounts(counts: np.ndarray) -> list[float]:
    """Discounts of counts 0, 1, 2 and more by the estimate of Chen and Goodman from the counts of counts."""
    n1, n2, n3, n4 = (int((counts == c).sum()) for c in range(1, 5))
    y = n1 / max(n1 + 2 * n2, 1)
    found = [0.0]
    for count, few, more in ((1, n1, n2), (2, n2, n3), (_DISCOUNTED, n3, n4)):
        raw = count - (count + 1) * y * more / few if few else 0.5
        found.append(min(max(raw, _MARGIN), count - _MARGIN))
    return found


class History:
    """One stream as it grows: counts of its strings on top of those of a training stream.

    Args:
        counts: of the training stream.
    """

    def __init__(self, counts: StringCounts):
        self.counts = counts
        self._nodes: dict[tuple[int, ...], Node] = {}
        self._recent: tuple[int, ...] = ()
        self._strings = np.full(counts.order + 1, -1, np.int64)
        self._strings[0] = 0
        self._here: list[Node] | None = None

    def nodes(self) -> list[Node]:
        """What was seen behind the last 0, 1, ... symbols, up to ``order`` of them or the stream's length."""
        if self._here is None:
            here = []
            for length in range(len(self._recent) + 1):
                context = self._recent[len(self._recent) - length :]
                node = self._nodes.get(context)
                if node is None:
                    string = self._strings[length]
                    node = self._nodes[context] = self.counts.node(string) if string >= 0 else ([], [], [])
                here.append(node)
            self._here = here
        return self._here

    def append(self, symbol: int) -> None:
        """Go on by one symbol, and count it behind its contexts."""
        longer_is_new = True
        for symbols, seen, distinct in reversed(self.nodes()):
            if symbol in symbols:
                place = symbols.index(symbol)
                seen[place] += 1
                distinct[place] += longer_is_new
                longer_is_new = False
            else:
                symbols.append(symbol)
                seen.append(1)
                distinct.append(1)
        order = self.counts.order
        if order:
            self._strings[1:] = self.counts.children(self._strings[:-1], symbol)
            self._recent = (*self._recent, symbol)[-order:]
        self._here = None


class Rows:
    """Counts at several places, of one stream or of many, gathered to be worked on together."""

    def __init__(self, counts: StringCounts):
        self.counts = counts
        self.size = 0
        self._entries: Node = ([], [], [])
        self._lengths: list[int] = []
        self._cells: list[int] = []

    def add(self, history: History) -> None:
        """Copy what ``history`` has seen behind its present contexts."""
        base = self.size * (self.counts.order + 1)
        for length, node in enumerate(history.nodes()):
            for kept, part in zip(self._entries, node, strict=True):
                kept.extend(part)
            self._lengths.append(len(node[0]))
            self._cells.append(base + length)
        self.size += 1

    def predict(self) -> tuple[np.ndarray, np.ndarray]:
        """Chances of the next symbol by every length of context, and what is known about each of these.

        Returns:
            probabilities float64 ``[R, order, K]`` for contexts of 1 to ``order`` symbols, each smoothed by shorter
            ones, and features float64 ``[R, 2 * order]``: logarithms of one more than the occurrences of every context
            and than the symbols seen behind it.
        """
        order, alphabet = self.counts.order, self.counts.alphabet
        cells = self.size * (order + 1)
        cell = np.repeat(np.array(self._cells, np.int64), self._lengths)
        symbols = np.array(self._entries[0], np.int64)
        parts = []
        for discounts, entries in zip(self.counts.discounts, self._entries[1:], strict=True):
            number = np.array(entries, np.float64)
            off = discounts[cell % (order + 1), np.minimum(number, _DISCOUNTED).astype(np.int64)]
            total = np.bincount(cell, number, cells)
            safe = np.maximum(total, 1.0)
            kept = np.zeros(cells * alphabet)
            kept[cell * alphabet + symbols] = (number - off) / safe[cell]
            rest = np.where(total > 0, np.bincount(cell, off, cells) / safe, 1.0)
            parts.append((kept.reshape(self.size, order + 1, alphabet), rest.reshape(self.size, order + 1, 1), total))
        (own, passed, total), (own_distinct, passed_distinct, _) = parts
        out = np.empty((self.size, order, alphabet))
        shorter = np.full((self.size, alphabet), 1.0 / alphabet)
        for length in range(order + 1):
            if length:
                out[:, length - 1] = own[:, length] + passed[:, length] * shorter
            shorter = own_distinct[:, length] + passed_distinct[:, length] * shorter
        kinds = np.bincount(cell, minlength=cells)
        features = np.log1p(np.stack([total, kinds], -1)).reshape(self.size, order + 1, 2)[:, 1:]
        return out, features.reshape(self.size, 2 * order)


def gather(counts: StringCounts, histories: Sequence[History]) -> Rows:
    """The present places of several streams."""
    rows = Rows(counts)
    for history in histories:
        rows.add(history)
    return rows
