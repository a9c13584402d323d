"""One table column's cells as a few symbols, coarse to fine, with a way out for cells never seen."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from ancestral.tokenizers.formats import Format, from_state, infer

Cell = str | None
MOST = 256  # symbols at one site
_MET_AGAIN = 0.2  # share of the rows whose value is met again, above which values are listed
_SPECIALS = 32  # odd cells of a numeric column ("?", "n/a", missing) that get a symbol of their own
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]+)?")
_BOOLEANS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"}, {"0", "1"})


class Codec(ABC):
    """Cells of one column <-> symbols ``[n, s]``.

    Attributes:
        kind: what the column was taken for.
        sizes: symbols at each of its s sites; the last symbol of the first site means "escaped".
        common: the cell that occurs most, which stands in for an escape without its text.
    """

    kind: str
    sizes: tuple[int, ...]
    common: Cell

    @property
    def escape(self) -> int:
        """The symbol of the first site that stands for a cell kept elsewhere."""
        return self.sizes[0] - 1

    @abstractmethod
    def encode(self, cells: Sequence[Cell]) -> np.ndarray:
        """Symbols int64 ``[n, s]``; those of a cell that cannot be held are the escape, then zeros."""

    @abstractmethod
    def decode(self, symbols: np.ndarray) -> np.ndarray:
        """Cells, object ``[n]``, of symbols int64 ``[n, s]``; what no cell has goes to the nearest one."""

    @abstractmethod
    def near(self, cell: str) -> Cell:
        """The known cell that means the same as this one (``39`` for ``39.0``), or the cell itself."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """JSON content; see :func:`codec_from_state`."""


class Vocabulary(Codec):
    """A list of cells; more than 255 are numbered by digits, coarse to fine, so that no site is large.

    Args:
        cells: distinct cells, commonest first or in their natural order.
        kind: what the column was taken for.
        common: the commonest cell.
    """

    def __init__(self, cells: Sequence[Cell], kind: str, common: Cell) -> None:
        self.cells, self.kind, self.common = list(cells), kind, common
        count = len(self.cells)
        digits, base = 1, count
        while base > MOST - 1:
            digits += 1
            base = math.ceil(count ** (1 / digits))
            base += base**digits < count  # the float root may fall just short
        self.base = base
        self.sizes = (-(-count // base ** (digits - 1)) + 1, *[base] * (digits - 1))
        self._index = {cell: i for i, cell in enumerate(self.cells)}
        self._loose: dict[Any, Cell] = {}

    def encode(self, cells: Sequence[Cell]) -> np.ndarray:
        index = np.array([self._index.get(c, -1) for c in cells], dtype=np.int64)
        out = np.zeros((len(index), len(self.sizes)), dtype=np.int64)
        rest = np.maximum(index, 0)
        for site in range(len(self.sizes) - 1, 0, -1):
            out[:, site] = rest % self.base
            rest = rest // self.base
        out[:, 0] = rest
        out[index < 0] = [self.escape] + [0] * (len(self.sizes) - 1)
        return out

    def decode(self, symbols: np.ndarray) -> np.ndarray:
        index = symbols[:, 0].copy()
        for site in range(1, len(self.sizes)):
            index = index * self.base + symbols[:, site]
        table = np.empty(len(self.cells), dtype=object)
        table[:] = self.cells
        out = table[np.minimum(index, len(self.cells) - 1)]
        out[symbols[:, 0] == self.escape] = self.common
        return out

    def near(self, cell: str) -> Cell:
        if cell in self._index:
            return cell
        if not self._loose:
            for known in self.cells:
                if known is not None:
                    self._loose.setdefault(_loose(known), known)
        return self._loose.get(_loose(cell), cell)

    def state(self) -> dict[str, Any]:
        return {"codec": "vocabulary", "cells": self.cells, "kind": self.kind, "common": self.common}


def _loose(cell: str) -> Any:
    """What two spellings of a value share: the number, or the word without case and outer spaces."""
    word = cell.strip().casefold()
    try:
        return float(word)
    except ValueError:
        return word


class Numbers(Codec):
    """Numbers or dates as the quantile bin, then the digits within; all between the extremes have a code.

    The digits are those of the number itself (hundreds, then units; hours, then minutes), except that the
    coarsest counts from the bin's start, so that round numbers look alike in all bins.

    Args:
        form: how the cells are written.
        starts: first integer of every bin, ascending; a bin ends before the next.
        last: the largest integer of the last bin.
        specials: cells that are no number and have a symbol of their own.
        kind: what the column was taken for.
        common: the commonest cell.
        listed: integers that are one symbol behind their bin rather than digits, ascending, at most 255 a bin.
    """

    def __init__(
        self,
        form: Format,
        starts: Sequence[int],
        last: int,
        specials: Sequence[Cell],
        kind: str,
        common: Cell,
        listed: Sequence[int] = (),
    ) -> None:
        self.form, self.specials, self.kind, self.common = form, list(specials), kind, common
        self.starts = np.array(starts, dtype=np.int64)
        self.last = int(last)
        low, high = self.starts, np.append(self.starts[1:] - 1, self.last)
        # Bounds of every bin at each level of coarseness, the finest first, and the digit that leads there.
        self._levels = [(low, high)]
        self._radix: list[int] = []
        radices = form.radices()
        while int((high - low).max()) >= MOST:
            radix = next(radices)
            low, high = low // radix, high // radix
            self._levels.append((low, high))
            self._radix.append(radix)
        span = int((high - low).max()) + 1
        first = len(self.specials) + len(self.starts) + 1
        self.sizes = (first, span, *reversed(self._radix)) if span > 1 else (first,)
        self.listed = np.array(listed, dtype=np.int64)
        if len(self.listed):
            # Where the list of every bin begins.
            self._list = np.searchsorted(self.listed, np.append(self.starts, self.last + 1))
            self.sizes = (first, int(np.diff(self._list).max()) + 1, *self.sizes[1:])
        self._special = {cell: i for i, cell in enumerate(self.specials)}

    def encode(self, cells: Sequence[Cell]) -> np.ndarray:
        out = np.zeros((len(cells), len(self.sizes)), dtype=np.int64)
        out[:, 0] = [self._special.get(c, self.escape) for c in cells]
        plain = [(i, c) for i, c in enumerate(cells) if c is not None and c not in self._special]
        rest = np.array([i for i, _ in plain], dtype=np.int64)
        numbers, good = self.form.parse([c for _, c in plain])
        good &= (numbers >= self.starts[0]) & (numbers <= self.last)
        rest, numbers = rest[good], numbers[good]
        bins = np.searchsorted(self.starts, numbers, side="right") - 1
        out[rest, 0] = bins + len(self.specials)
        if len(self.listed):
            place = np.minimum(np.searchsorted(self.listed, numbers), len(self.listed) - 1)
            known = self.listed[place] == numbers
            out[rest, 1] = np.where(known, place - self._list[bins], self.sizes[1] - 1)
        if len(self.sizes) > self._first_digit:
            for level, radix in enumerate(self._radix):
                out[rest, len(self.sizes) - 1 - level] = numbers % radix
                numbers = numbers // radix
            out[rest, self._first_digit] = numbers - self._levels[-1][0][bins]
        return out

    @property
    def _first_digit(self) -> int:
        return 2 if len(self.listed) else 1

    def decode(self, symbols: np.ndarray) -> np.ndarray:
        out = np.empty(len(symbols), dtype=object)
        first = symbols[:, 0]
        special = first < len(self.specials)
        out[special] = np.array([*self.specials, None], dtype=object)[first[special]]
        out[first == self.escape] = self.common
        rows = np.flatnonzero(~special & (first != self.escape))
        bins = first[rows] - len(self.specials)
        low, high = self._levels[-1]
        numbers = low[bins]
        if len(self.sizes) > self._first_digit:
            numbers = np.minimum(numbers + symbols[rows, self._first_digit], high[bins])
            for level in range(len(self._radix) - 1, -1, -1):
                low, high = self._levels[level]
                digit = symbols[rows, len(self.sizes) - 1 - level]
                numbers = np.clip(numbers * self._radix[level] + digit, low[bins], high[bins])
        if len(self.listed):
            # An entry that its bin does not have stands for the bin's last, the last symbol for the digits.
            entry = np.minimum(symbols[rows, 1], np.diff(self._list)[bins] - 1)
            spelled = (symbols[rows, 1] == self.sizes[1] - 1) | (entry < 0)
            place = np.clip(self._list[bins] + entry, 0, len(self.listed) - 1)
            numbers = np.where(spelled, numbers, self.listed[place])
        values, back = np.unique(numbers, return_inverse=True)
        out[rows] = self.form.write(values)[back]
        return out

    def near(self, cell: str) -> Cell:
        if cell in self._special or bool(self.form.parse([cell])[1][0]):
            return cell
        return self.form.near(cell) or cell

    def state(self) -> dict[str, Any]:
        return {
            "codec": "numbers",
            "form": {"kind": self.form.kind, **self.form.state()},
            "starts": self.starts.tolist(),
            "last": self.last,
            "specials": self.specials,
            "kind": self.kind,
            "common": self.common,
            "listed": self.listed.tolist(),
        }


def is_listed(codec: Codec) -> bool:
    """Whether the codec has a list of values: a coarse symbol, then an entry of that symbol's list."""
    return bool(len(codec.listed)) if isinstance(codec, Numbers) else len(codec.sizes) == 2


def plain_type(codec: Codec) -> str | None:
    """The Arrow type that holds all of a csv column's cells, written plainly: ``int64``, ``double``, ``bool`` or None.

    Numbers with units, with zeros in front (``00501``) or beside other words are words.
    """
    if isinstance(codec, Numbers):
        if any(codec.specials):
            return None
        form = codec.form.state()
        if codec.form.kind == "decimal":
            plain = not (form["prefix"] or form["suffix"] or "marks" in form) and form["width"] <= 1
            return ("double" if form["places"] else "int64") if plain else None
        return "double" if codec.form.kind == "float" else None
    words = [cell for cell in codec.cells if cell] if isinstance(codec, Vocabulary) else []
    if not words:
        return None
    if set(words) <= {"True", "False"} or set(words) <= {"true", "false"}:
        return "bool"
    if all(map(_WHOLE.fullmatch, words)):
        return "int64"
    return "double" if all(map(_DECIMAL.fullmatch, words)) else None


def codec_from_state(state: dict[str, Any]) -> Codec:
    """The codec that ``state()`` described."""
    if state["codec"] == "vocabulary":
        return Vocabulary(state["cells"], state["kind"], state["common"])
    return Numbers(
        from_state(state["form"]),
        state["starts"],
        state["last"],
        state["specials"],
        state["kind"],
        state["common"],
        state.get("listed", ()),
    )


def fit_codec(cells: list[Cell], counts: np.ndarray, bins: int, spec: str, lists: bool = False) -> Codec:
    """Choose a codec for a column.

    Args:
        cells: its distinct cells.
        counts: how often each occurs, int64.
        bins: most quantile bins for numbers.
        spec: type of the column (``csv`` if it is only known as strings).
        lists: list the values of a wide number that are met again and again.
    """
    common = cells[int(np.argmax(counts))]
    present = np.array([c is not None and c != "" for c in cells], dtype=bool)
    words = [c for c, p in zip(cells, present) if p and c is not None]
    if not words:
        return Vocabulary(cells, "missing", common)
    if len(cells) == 1:
        return Vocabulary(cells, "constant", common)
    if {w.strip().casefold() for w in words} in _BOOLEANS:
        return Vocabulary(_frequent(cells, counts), "boolean", common)
    form = infer(words, counts[present], spec)
    if form is not None:
        return _numbers(form, cells, counts, bins, common, lists)
    total = int(counts[present].sum())
    kind = "text" if len(words) >= MOST and len(words) > 0.5 * total else "categorical"
    return Vocabulary(_frequent(cells, counts), kind, common)


def _frequent(cells: list[Cell], counts: np.ndarray) -> list[Cell]:
    """Commonest first; ties in the order of the words, so that the order of rows does not matter."""
    order = sorted(range(len(cells)), key=lambda i: (-counts[i], cells[i] is not None, cells[i] or ""))
    return [cells[i] for i in order]


def _numbers(form: Format, cells: list[Cell], counts: np.ndarray, bins: int, common: Cell, lists: bool) -> Codec:
    numbers, good = form.parse(["" if c is None else c for c in cells])
    kind = form.kind if form.kind != "decimal" else ("decimal" if form.state()["places"] else "integer")
    if kind == "datetime" and form.state()["unit"] == "D":
        kind = "date"
    odd = [i for i in range(len(cells)) if not good[i]]
    specials = _frequent([cells[i] for i in odd], counts[odd])[:_SPECIALS] if odd else []
    order = np.argsort(numbers[good], kind="stable")
    values, weights = numbers[good][order], counts[good][order]
    room = MOST - 1 - len(specials)
    total, width = int(weights.sum()), int(values[-1]) - int(values[0]) + 1
    if width <= min(room, 4 * len(values)):
        starts = list(range(int(values[0]), int(values[-1]) + 1))
    elif len(values) <= room and total >= 4 * len(values) and 200 * int((weights == 1).sum()) <= total:
        # Good and Turing: the share of values seen once is that of values not seen yet, which would be
        # escaped.
        known = np.array(cells, dtype=object)[good][order].tolist()
        return Vocabulary([*specials, *known], kind, common)
    else:
        # A bin that holds zero makes another, so that halving it leaves the first site below its limit.
        starts = _quantiles(values, weights, max(1, min(bins, (room - 1) // 2, max(4, math.isqrt(total)))))
        if values[0] < 0 <= values[-1] and 0 not in starts:
            starts = sorted([*starts, 0])
    plain = Numbers(form, starts, int(values[-1]), specials, kind, common)
    if not lists or len(plain.sizes) == 1 or weights[weights > 1].sum() < _MET_AGAIN * total:
        return plain
    listed = _commonest(values, weights, starts)
    return Numbers(form, starts, int(values[-1]), specials, kind, common, listed)


def _commonest(values: np.ndarray, weights: np.ndarray, starts: list[int]) -> list[int]:
    """At most ``MOST - 1`` values of every bin, the commonest, ascending."""
    bins = np.searchsorted(starts, values, side="right")
    order = np.lexsort((values, -weights, bins))
    rank = np.arange(len(order)) - np.searchsorted(bins[order], bins[order])
    return np.sort(values[order[rank < MOST - 1]]).tolist()


def _quantiles(values: np.ndarray, weights: np.ndarray, bins: int) -> list[int]:
    """First integers of bins that hold equal shares of the data; a value with a whole share has its own bin.

    Args:
        values: distinct, ascending, int64.
        weights: how often each occurs.
        bins: shares; at most twice as many bins result.
    """
    share = weights.sum() / bins
    starts = [int(values[0])]
    filled = 0.0
    for value, weight in zip(values.tolist(), weights.tolist()):
        if filled > 0 and (weight >= share or filled + weight / 2 > share):
            starts.append(value)
            filled = 0.0
        filled += weight
        if weight >= share and value < values[-1]:
            starts.append(value + 1)
            filled = 0.0
    return starts
