"""What a column is restricted to, sets and ranges of its cells, as blocks of its symbols."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from typing import Any

import numpy as np

from ancestral.errors import DataError, UnsupportedError
from ancestral.tokenizers.codecs import Codec, Numbers, Vocabulary
from ancestral.tokenizers.columns import Columns
from ancestral.tokenizers.formats import DateFormat, DecimalFormat, FloatFormat, Format, infer

_NANOSECONDS = {"D": 86_400 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}

MOST_NODES = 1 << 20
"""Most prefixes of symbols that are looked at together."""


@dataclass(frozen=True)
class Between:
    """All cells of a column of numbers or dates from ``low`` to ``high``, both included; None leaves an end open."""

    low: Any = None
    high: Any = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"at most {self.high}" if self.low is None else f"at least {self.low}"
        return f"between {self.low} and {self.high}"


def between(low: Any = None, high: Any = None) -> Between:
    """A range for ``given=``: ``model.sample(100, given={"age": between(30, 40)})``.

    Args:
        low: smallest number or earliest date that may occur, itself included; None for no limit.
        high: largest number or latest date, itself included (a date without a time includes that day); None for no
            limit.

    Raises:
        DataError: both ends are open.
    """
    if low is None and high is None:
        raise DataError("between() names no end; give low, high or both, or leave the column out of given=")
    return Between(low, high)


def is_restriction(value: Any) -> bool:
    """Whether a value of ``given=`` is a set or a range rather than a single cell."""
    return isinstance(value, (Between, set, frozenset, list, tuple, range)) or (
        hasattr(value, "__iter__") and hasattr(value, "shape") and len(value.shape) == 1
    )


def split_given(given: Any) -> tuple[Any, dict[str, list[Any]]]:
    """The single cells of ``given=``, and for every restricted column its cells and ranges."""
    if not isinstance(given, Mapping):
        return given, {}
    single, restricted = {}, {}
    for name, value in ((str(name), value) for name, value in given.items()):
        if not is_restriction(value):
            single[name] = value
        else:
            restricted[name] = [value] if isinstance(value, Between) else list(value)
            if not restricted[name]:
                raise DataError(f"given= restricts column {name!r} to no value at all; name at least one")
    return single, restricted


class Blocks:
    """The symbols of a column's cells that lie in a set or in ranges, found prefix by prefix, coarse to fine.

    Symbols count with the cell that they decode to; the escape symbol, which stands for cells that training never
    had, is never in a set.

    Args:
        tokenizer: fitted.
        name: of the column.
        wanted: cells and ranges (:class:`Between`).

    Raises:
        DataError: no such column, a value that it cannot take, or a range without a value.
    """

    def __init__(self, tokenizer: Columns, name: str, wanted: list[Any]) -> None:
        if name not in tokenizer.columns:
            raise DataError(f"there is no column {name!r}; there are {', '.join(map(repr, tokenizer.columns))}")
        self.name, self.sites = name, tokenizer.columns[name]
        self.codec: Codec = tokenizer._codecs[name]
        self.sizes = self.codec.sizes
        self._special = np.zeros(self._odd, dtype=bool)
        spans: list[tuple[int, int]] = []
        ranges = [w for w in wanted if isinstance(w, Between)]
        cells = [w for w in wanted if not isinstance(w, Between)]
        symbols = tokenizer.encode_column(name, cells).numpy() if cells else np.zeros((0, len(self.sizes)), np.int64)
        odd = symbols[:, 0] < self._odd
        self._special[symbols[odd, 0]] = True
        spans += [(place, place) for place in self._places(symbols[~odd]).tolist()]
        for each in ranges:
            spans += self._range(each, tokenizer.schema[name])
        merged: list[tuple[int, int]] = []
        for low, high in sorted(spans):
            if merged and low <= merged[-1][1] + 1:
                merged[-1] = merged[-1][0], max(merged[-1][1], high)
            else:
                merged.append((low, high))
        self._lows = np.array([low for low, _ in merged], dtype=np.int64)
        self._highs = np.array([high for _, high in merged], dtype=np.int64)

    @property
    def _odd(self) -> int:
        """How many symbols of the first site are cells of their own, apart from the order of numbers."""
        return len(self.codec.specials) if isinstance(self.codec, Numbers) else 0

    def children(self, prefixes: np.ndarray) -> np.ndarray:
        """How far the continuations of prefixes lie in the set.

        Args:
            prefixes: int64 ``[P, d]``, the first d symbols of the column.

        Returns:
            int8 ``[P, K]`` for each next symbol: 0 no cell behind it is wanted, 1 some are, 2 all are, 3 it is wanted
            and there is only one.

        Raises:
            UnsupportedError: too many at once.
        """
        size = self.sizes[prefixes.shape[1]]
        if len(prefixes) * size > MOST_NODES:
            raise UnsupportedError(
                f"the values that column {self.name!r} is restricted to are too scattered to be weighed one by one; "
                "give one range, or fewer values"
            )
        longer = np.concatenate(
            [np.repeat(prefixes, size, 0), np.tile(np.arange(size, dtype=np.int64), len(prefixes))[:, None]], 1
        )
        state = np.zeros(len(longer), dtype=np.int8)
        plain = np.ones(len(longer), dtype=bool)
        if prefixes.shape[1] == 0:
            state[: self._odd] = 3 * self._special
            plain[: self._odd] = False
            plain[self.codec.escape] = False
        else:  # specials and escapes are wanted as a whole, or not at all
            special = prefixes[:, 0] < self._odd
            state[np.repeat(special, size)] = 3
            plain[np.repeat(special, size)] = False
        if len(self._lows) and plain.any():
            low, high = self._bounds(longer[plain])
            place = np.minimum(np.searchsorted(self._highs, low), len(self._highs) - 1)
            meets = (self._lows[place] <= high) & (self._highs[place] >= low)
            within = (self._lows[place] <= low) & (self._highs[place] >= high)
            state[plain] = np.where(within, np.where(low == high, 3, 2), np.where(meets, 1, 0))
        return state.reshape(len(prefixes), size)

    @property
    def count(self) -> int:
        """How many cells there are at most."""
        return int(self._special.sum()) + int((self._highs - self._lows + 1).sum())

    def proper(self, prefixes: np.ndarray) -> np.ndarray:
        """The symbols int64 ``[P, s]`` that encode the only cell behind each prefix ``[P, d]``."""
        rest = np.zeros((len(prefixes), len(self.sizes) - prefixes.shape[1]), np.int64)
        return self.codec.encode(self.codec.decode(np.concatenate([prefixes, rest], 1)).tolist())

    def _bounds(self, prefixes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest place of the cells behind prefixes ``[P, d]``: decoding never falls with a symbol."""
        codec, depth = self.codec, prefixes.shape[1]
        if isinstance(codec, Numbers) and depth == 1 and len(codec.listed):  # a list's entries are no digits
            bins = prefixes[:, 0] - self._odd
            return codec.starts[bins], np.append(codec.starts[1:] - 1, codec.last)[bins]
        rest = np.array(self.sizes[depth:], dtype=np.int64)
        first = np.concatenate([prefixes, np.zeros((len(prefixes), len(rest)), np.int64)], 1)
        last = np.concatenate([prefixes, np.broadcast_to(rest - 1, (len(prefixes), len(rest)))], 1)
        return self._places(first), self._places(last)

    def _places(self, symbols: np.ndarray) -> np.ndarray:
        """Where cells stand among the column's, int64 ``[V]``: the integer of a number, the index in a list."""
        codec = self.codec
        if isinstance(codec, Numbers):
            return codec.form.read(codec.decode(symbols).tolist())[0] if len(symbols) else np.zeros(0, np.int64)
        assert isinstance(codec, Vocabulary)
        index = symbols[:, 0].copy()
        for site in range(1, symbols.shape[1]):
            index = index * codec.base + symbols[:, site]
        return np.minimum(index, len(codec.cells) - 1)

    def _range(self, wanted: Between, schema: dict[str, Any]) -> list[tuple[int, int]]:
        """Runs of places within the range."""
        codec, name = self.codec, self.name
        form = codec.form if isinstance(codec, Numbers) else _form_of(codec, schema)
        if form is None:
            raise DataError(
                f"column {name!r} is {codec.kind} and has no order for a range {wanted}; give a set of its values"
            )
        low = None if wanted.low is None else _end(form, wanted.low, name, schema, upper=False)
        high = None if wanted.high is None else _end(form, wanted.high, name, schema, upper=True)
        if isinstance(codec, Numbers):
            least, most = int(codec.starts[0]), codec.last
            runs = [(max(least, least if low is None else low), min(most, most if high is None else high))]
            runs = [run for run in runs if run[0] <= run[1]]
        else:
            assert isinstance(codec, Vocabulary)
            numbers, good = form.parse(["" if c is None else c for c in codec.cells])
            good &= (numbers >= low) if low is not None else True
            good &= (numbers <= high) if high is not None else True
            least, most = 0, len(codec.cells) - 1
            runs = [(place, place) for place in np.flatnonzero(good).tolist()]
        if not runs:
            raise DataError(f"column {name!r} has no value {wanted}; it takes {_extremes(codec, form)}")
        return runs


def _form_of(codec: Codec, schema: dict[str, Any]) -> Format | None:
    """How the cells of a list of numbers or dates are written; None of words."""
    assert isinstance(codec, Vocabulary)
    cells = [c for c in codec.cells if c is not None and any(ch.isdigit() for ch in c)]
    if codec.kind in ("categorical", "text", "boolean", "missing") or not cells:
        return None
    return infer(cells, np.ones(len(cells), dtype=np.int64), schema["dtype"])


def _extremes(codec: Codec, form: Format) -> str:
    if isinstance(codec, Numbers):
        low, high = form.write(np.array([codec.starts[0], codec.last]))
        return f"{low} to {high}"
    assert isinstance(codec, Vocabulary)
    numbers, good = form.parse(["" if c is None else c for c in codec.cells])
    low, high = form.write(np.array([numbers[good].min(), numbers[good].max()]))
    return f"{low} to {high}"


def _end(form: Format, value: Any, name: str, schema: dict[str, Any], upper: bool) -> int:
    """The integer of the last cell within an end of a range."""
    try:
        if isinstance(form, DateFormat):
            return _moment(form, value, schema, upper)
        if isinstance(form, FloatFormat):
            number = float(value)
            if math.isfinite(number):
                place = int(form.read([form.near(repr(number)) or ""])[0][0])
                # The format may have rounded the end beyond itself.
                beyond = float(form.write(np.array([place]))[0])
                return place - (upper and beyond > number) + (not upper and beyond < number)
        else:
            assert isinstance(form, DecimalFormat)
            numbers, good = form.parse([value] if isinstance(value, str) else [""])
            if bool(good[0]):  # written as the column writes its numbers
                return int(numbers[0])
            text = _ticks(value, schema["dtype"]).strip()
            if not isinstance(value, (int, float)) and form.prefix and text.startswith(form.prefix):
                text = text[len(form.prefix) :]
            if form.suffix and text.endswith(form.suffix):
                text = text[: -len(form.suffix)]
            scaled = Decimal(text).scaleb(form.places)
            if scaled.is_finite():
                whole = scaled.to_integral_value(ROUND_FLOOR if upper else ROUND_CEILING)
                return int(max(min(whole, Decimal(2**62)), Decimal(-(2**62))))
    except (ValueError, TypeError, InvalidOperation, OverflowError):
        pass
    what, example = "number", "12.5"
    if isinstance(form, DateFormat):
        what, example = "date", str(form.write(np.zeros(1, dtype=np.int64))[0])
    raise DataError(f"the end {value!r} of the range for column {name!r} is no {what}; write it like {example}")


def _ticks(value: Any, dtype: str) -> str:
    """A number as text; a duration counted in the ticks of its column."""
    if dtype.startswith("timedelta64") and not isinstance(value, (int, float, str)):
        return str(np.timedelta64(value).astype(dtype.replace("timedelta64", "m8")).astype(np.int64))
    return str(value)


def _moment(form: DateFormat, value: Any, schema: dict[str, Any], upper: bool) -> int:
    """Ticks since 1970 of an end of a range of dates; a day without a time is meant whole."""
    import pandas as pd

    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError("a number is no date")
    text = value
    if form.pattern.startswith(("%H", "%I")):  # a time of day
        clock = value if isinstance(value, datetime.time) else datetime.time.fromisoformat(str(value))
        text = clock.strftime(form.pattern)
    whole = isinstance(value, datetime.date) and not isinstance(value, datetime.datetime)
    if isinstance(text, str):
        numbers, good = form.parse([text])
        if bool(good[0]):
            if not (form.pattern == "iso" and len(text) <= 10):
                return int(numbers[0])
            whole = True
        elif form.pattern != "iso":
            # A day alone, spelled as the column spells its days: 05/03/2024 may be the fifth of March.
            days, good = DateFormat(re.split("[ T]", form.pattern)[0], "D").parse([text])
            text = np.datetime64(int(days[0]), "D") if bool(good[0]) else text
            whole = bool(good[0]) or ":" not in str(text)
        else:
            whole = ":" not in text and "T" not in text
    moment = pd.Timestamp(text)
    if moment is pd.NaT:
        raise ValueError("no date")
    if upper and whole:
        moment = moment + pd.Timedelta(days=1) - pd.Timedelta(1, "ns")
    zone = schema.get("tz")
    if zone is not None:
        moment = moment.tz_localize(zone) if moment.tzinfo is None else moment
        moment = moment.tz_convert("UTC").tz_localize(None)
    elif moment.tzinfo is not None:
        moment = moment.tz_convert("UTC").tz_localize(None)
    nanos = moment.as_unit("ns").value
    tick = _NANOSECONDS[form.unit]
    return nanos // tick if upper else -(-nanos // tick)
