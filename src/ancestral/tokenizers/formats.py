"""How the cells of a numeric or date column are written: string <-> integer, exactly."""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar

import numpy as np

from ancestral.data.cells import datetime_cells, moments_of

_NUMERAL = re.compile(r"([^0-9.+\-]{0,8}?)(-?)([0-9]+)(?:\.([0-9]+))?([^0-9.]{0,8})", re.DOTALL)
_SCIENTIFIC = re.compile(r"(-?)([0-9])\.([0-9]+)[eE]([+-][0-9]{2,3})")
_POWERS = 400  # beyond the exponents of floats
_DIGITS = 17  # decimal digits that int64 holds with room to spare
_LARGEST = 2**62  # so that differences of two numbers fit int64 too
_MOST = 0.9  # share of the present cells that a format must write exactly to be chosen
_DATE_FORMATS = (
    ("%Y-%m-%d", "D"),
    ("%d/%m/%Y", "D"),
    ("%m/%d/%Y", "D"),
    ("%d.%m.%Y", "D"),
    ("%Y/%m/%d", "D"),
    ("%Y-%m-%d %H:%M:%S", "s"),
    ("%Y-%m-%dT%H:%M:%S", "s"),
    ("%Y-%m-%dT%H:%M:%SZ", "s"),
    ("%Y-%m-%d %H:%M", "s"),
    ("%d/%m/%Y %H:%M", "s"),
    ("%m/%d/%Y %H:%M", "s"),
    ("%d/%m/%Y %H:%M:%S", "s"),
    ("%m/%d/%Y %H:%M:%S", "s"),
    ("%H:%M:%S", "s"),
    ("%H:%M", "s"),
    ("%Y-%m-%d %H:%M:%S.%f", "us"),
    ("%Y-%m-%dT%H:%M:%S.%f", "us"),
    ("%Y-%m-%dT%H:%M:%S.%fZ", "us"),
    ("%Y-%m-%d %H:%M:%S.%3f", "ms"),
    ("%Y-%m-%dT%H:%M:%S.%3f", "ms"),
    ("%Y-%m-%dT%H:%M:%S.%3fZ", "ms"),
    ("%Y-%m-%d %H:%M:%S+00:00", "s"),
    ("%Y-%m-%dT%H:%M:%S+00:00", "s"),
    ("%Y-%m-%d %H:%M:%S.%f+00:00", "us"),
    ("%Y-%m-%dT%H:%M:%S.%f+00:00", "us"),
    ("%Y-%m-%dT%H:%M", "s"),
    ("%-m/%-d/%Y", "D"),
    ("%-d/%-m/%Y", "D"),
    ("%-d.%-m.%Y", "D"),
    ("%-m/%-d/%y", "D"),
    ("%m/%d/%y", "D"),
    ("%d/%m/%y", "D"),
    ("%d-%m-%Y", "D"),
    ("%m-%d-%Y", "D"),
    ("%d-%b-%y", "D"),
    ("%d-%b-%Y", "D"),
    ("%d %b %Y", "D"),
    ("%b %d, %Y", "D"),
    ("%b %-d, %Y", "D"),
    ("%B %d, %Y", "D"),
    ("%B %-d, %Y", "D"),
    ("%d %B %Y", "D"),
    ("%m/%d/%Y %I:%M %p", "s"),
    ("%m/%d/%Y %I:%M:%S %p", "s"),
    ("%-m/%-d/%Y %-H:%M", "s"),
    ("%-m/%-d/%Y %-I:%M:%S %p", "s"),
    ("%Y%m%d%H%M%S", "s"),
    ("%Y/%m/%d %H:%M:%S", "s"),
    ("%d.%m.%Y %H:%M", "s"),
    ("%d.%m.%Y %H:%M:%S", "s"),
)
_RADICES = {
    "D": (7,),
    "s": (60, 60, 24, 7),
    "ms": (10, 100, 60, 60, 24, 7),
    "us": (100, 100, 100, 60, 60, 24, 7),
}
_RADICES["ns"] = (10, 100, *_RADICES["us"])


class Format(ABC):
    """A family of strings, each of which stands for one int64.

    The law: where :meth:`parse` says good, :meth:`write` of the integer gives the same string back.
    """

    kind: ClassVar[str]

    @abstractmethod
    def read(self, cells: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Integers int64 ``[n]`` and a mask of the cells that have one, not yet checked by writing them."""

    @abstractmethod
    def write(self, numbers: np.ndarray) -> np.ndarray:
        """The cells, object ``[n]`` of str, of int64 ``[n]``."""

    @abstractmethod
    def near(self, cell: str) -> str | None:
        """The cell of this format that means the same as a differently written one, or None."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """JSON content; see :func:`from_state`."""

    def radices(self) -> Iterator[int]:
        """Sizes of the digits that make up a number, from the finest."""
        return itertools.repeat(100)

    def parse(self, cells: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Integers int64 ``[n]`` and a mask of the cells that they write exactly."""
        numbers, good = self.read(cells)
        good = good.copy()  # pandas may give a view that it does not let one write to
        if good.any():
            good[good] = self.write(numbers[good]) == np.array([c for c, g in zip(cells, good) if g], dtype=object)
        return numbers, good


class DecimalFormat(Format):
    """Numbers with up to ``places`` decimals between a fixed prefix and suffix, as in ``$12.50``.

    Args:
        places: decimals of the integer's scale.
        least: decimals that are always written; further ones only where they are not trailing zeros.
        width: digits before the point, padded by zeros.
        prefix: text before the sign.
        suffix: text after the number.
        marks: the decimal point and what parts thousands, as in ``.,`` for 1,234.5 and ``,.`` for 1.234,5; a lone
            point parts no thousands.
    """

    kind = "decimal"

    def __init__(
        self, places: int, least: int, width: int = 1, prefix: str = "", suffix: str = "", marks: str = "."
    ) -> None:
        self.places, self.least, self.width, self.prefix, self.suffix = places, least, width, prefix, suffix
        self.marks = marks
        self._bare = (places, prefix, suffix, marks) == (0, "", "", ".") and width <= 1

    def read(self, cells: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.zeros(len(cells), dtype=np.int64)
        good = np.zeros(len(cells), dtype=bool)
        for i, cell in enumerate(cells if self.marks == "." else [_plain(c, self.marks) for c in cells]):
            match = _NUMERAL.fullmatch(cell)
            if match is None or match[1] != self.prefix or match[5] != self.suffix:
                continue
            fraction = match[4] or ""
            if len(fraction) <= self.places and len(match[3]) + self.places <= _DIGITS + 2:
                number = int(match[2] + match[3] + fraction.ljust(self.places, "0"))
                if abs(number) < _LARGEST:
                    numbers[i], good[i] = number, True
        return numbers, good

    def write(self, numbers: np.ndarray) -> np.ndarray:
        out = np.empty(len(numbers), dtype=object)
        if self._bare:
            out[:] = list(map(str, numbers.tolist()))
            return out
        for i, number in enumerate(numbers.tolist()):
            digits = str(abs(number)).rjust(self.places + 1, "0")
            cut = len(digits) - self.places
            fraction = digits[cut:].rstrip("0").ljust(self.least, "0")
            whole = digits[:cut].rjust(self.width, "0")
            point = self.marks[0] if fraction else ""
            if len(self.marks) > 1:
                whole = f"{int(whole):,}".replace(",", self.marks[1])
            out[i] = f"{self.prefix}{'-' if number < 0 else ''}{whole}{point}{fraction}{self.suffix}"
        return out

    def near(self, cell: str) -> str | None:
        try:
            scaled = Decimal(cell.strip()).scaleb(self.places)
            if scaled != scaled.to_integral_value() or abs(scaled) >= _LARGEST:
                return None
        except (InvalidOperation, OverflowError):
            return None
        return str(self.write(np.array([int(scaled)], dtype=np.int64))[0])

    def state(self) -> dict[str, Any]:
        return {
            "places": self.places,
            "least": self.least,
            "width": self.width,
            "prefix": self.prefix,
            "suffix": self.suffix,
            **({} if self.marks == "." else {"marks": self.marks}),
        }


class FloatFormat(Format):
    """64-bit floating-point numbers in their shortest digits, in the order of the real line.

    The integer is the number's bit pattern, mirrored for negative numbers.
    """

    kind = "float"

    def read(self, cells: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        values = np.full(len(cells), np.nan)
        for i, cell in enumerate(cells):
            try:
                values[i] = float(cell)
            except ValueError:
                continue
        bits = values.view(np.int64)
        numbers = np.where(bits >= 0, bits, -(bits & np.int64(2**63 - 1)) - 1)
        return numbers, np.isfinite(values)

    def write(self, numbers: np.ndarray) -> np.ndarray:
        numbers = np.asarray(numbers, dtype=np.int64)
        bits = np.where(numbers >= 0, numbers, (-(numbers + 1)) | np.int64(-(2**63)))
        out = np.empty(len(numbers), dtype=object)
        out[:] = [repr(v) for v in bits.view(np.float64).tolist()]
        return out

    def near(self, cell: str) -> str | None:
        try:
            return repr(float(cell))
        except ValueError:
            return None

    def radices(self) -> Iterator[int]:
        return itertools.repeat(256)

    def state(self) -> dict[str, Any]:
        return {}


class ScientificFormat(FloatFormat):
    """Numbers with one digit before the point, a fixed number behind it, and an exponent: ``1.250e-03``.

    The integer counts such numbers from zero outwards, or, where they have more digits than it holds, is that of
    :class:`FloatFormat`.

    Args:
        places: digits behind the point.
        mark: ``e`` or ``E``.
    """

    def __init__(self, places: int, mark: str = "e") -> None:
        self.places, self.mark = places, mark
        self._share = 9 * 10**places  # numbers of one exponent
        self._counted = places <= 14

    def read(self, cells: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        parts = [_SCIENTIFIC.fullmatch(cell) for cell in cells]
        good = np.array([p is not None and len(p[3]) == self.places for p in parts], dtype=bool)
        if not self._counted:
            numbers, finite = super().read(cells)
            return numbers, finite & good
        numbers = np.zeros(len(cells), dtype=np.int64)
        for i in np.flatnonzero(good):
            sign, first, rest, power = parts[i].groups()  # type: ignore[union-attr]
            above = int(first + rest) - 10**self.places  # within its exponent; negative for zero only
            if not -_POWERS <= int(power) < _POWERS or above < 0:
                continue
            count = (int(power) + _POWERS) * self._share + above + 1
            numbers[i] = -count if sign == "-" else count
        return numbers, good

    def write(self, numbers: np.ndarray) -> np.ndarray:
        if not self._counted:
            cells = [format(float(cell), f".{self.places}e") for cell in super().write(numbers)]
        else:
            cells = []
            for number in np.asarray(numbers, dtype=np.int64).tolist():
                power, above = divmod(abs(number) - 1, self._share) if number else (_POWERS, -(10**self.places))
                digits = str(above + 10**self.places).rjust(self.places + 1, "0")
                sign, power = "-" if number < 0 else "", power - _POWERS
                cells.append(f"{sign}{digits[0]}.{digits[1:]}e{'-' if power < 0 else '+'}{abs(power):02d}")
        out = np.empty(len(cells), dtype=object)
        out[:] = [cell.replace("e", self.mark) for cell in cells]
        return out

    def near(self, cell: str) -> str | None:
        try:
            return format(float(cell), f".{self.places}e").replace("e", self.mark)
        except ValueError:
            return None

    def radices(self) -> Iterator[int]:
        return itertools.repeat(100) if self._counted else super().radices()

    def state(self) -> dict[str, Any]:
        return {"kind": "scientific", "places": self.places, "mark": self.mark}


class DateFormat(Format):
    """Dates and times.

    Args:
        pattern: that of ``strftime`` (``%-d`` without a zero in front, ``%3f`` thousandths), or ``"iso"`` for
            ISO 8601 as short as each moment allows (typed columns).
        unit: of the integer since 1970: ``D``, ``s``, ``ms``, ``us`` or ``ns``.
    """

    kind = "datetime"

    def __init__(self, pattern: str, unit: str) -> None:
        self.pattern, self.unit = pattern, unit

    def read(self, cells: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        if self.pattern == "iso":
            fine, good = moments_of(list(cells))
            return fine.astype(f"M8[{self.unit}]").view(np.int64), good
        import pandas as pd

        # Reading takes digits without zeros in front as they come, and fractions of any length.
        plain = self.pattern.replace("%-", "%").replace("%3f", "%f")
        parsed = pd.to_datetime(pd.Series(list(cells), dtype=object), format=plain, errors="coerce")
        good = parsed.notna().to_numpy()
        moments = parsed.to_numpy().astype(f"M8[{self.unit}]")
        return np.where(good, moments.view(np.int64), 0), good

    def write(self, numbers: np.ndarray) -> np.ndarray:
        moments = np.asarray(numbers, dtype=np.int64).view(f"M8[{self.unit}]")
        if self.pattern == "iso":
            return datetime_cells(moments)
        import pandas as pd

        unit = self.unit if self.unit in ("ms", "us") else "s"
        series = pd.Series(moments.astype(f"M8[{unit}]"))
        if "%-" not in self.pattern and "%3f" not in self.pattern:
            return series.dt.strftime(self.pattern).to_numpy(dtype=object)
        # Not every system's strftime knows "%-d", and none "%3f": cut the zeros off the padded parts instead.
        parts = re.split(r"(%-?[A-Za-z]|%3f)", self.pattern)
        out = np.full(len(series), "", dtype=object)
        for part in filter(None, parts):
            if part == "%3f":
                words = series.dt.strftime("%f").str[:3]
            elif part.startswith("%-"):
                words = series.dt.strftime("%" + part[2:]).str.lstrip("0")
                words = words.where(words != "", "0")
            else:
                words = series.dt.strftime(part)
            out = out + words.to_numpy(dtype=object)
        return out

    def near(self, cell: str) -> str | None:
        import pandas as pd

        moment = pd.to_datetime(pd.Series([cell], dtype=object), errors="coerce")
        if bool(moment.isna()[0]):
            return None
        moments = moment.to_numpy().astype(f"M8[{self.unit}]")
        return str(self.write(moments.view(np.int64))[0])

    def radices(self) -> Iterator[int]:
        return itertools.chain(_RADICES[self.unit], itertools.repeat(100))

    def state(self) -> dict[str, Any]:
        return {"pattern": self.pattern, "unit": self.unit}


def from_state(state: dict[str, Any]) -> Format:
    """The format that ``{"kind": ..., **state()}`` described."""
    options = {k: v for k, v in state.items() if k != "kind"}
    kinds: dict[str, Any] = {
        "decimal": DecimalFormat,
        "float": FloatFormat,
        "scientific": ScientificFormat,
        "datetime": DateFormat,
    }
    return kinds[state["kind"]](**options)


def infer(cells: list[str], counts: np.ndarray, spec: str) -> Format | None:
    """The format that writes at least nine tenths of a column's cells exactly, or None.

    Args:
        cells: the distinct cells that are present.
        counts: how often each occurs, int64.
        spec: type of the column (``csv`` if it is only known as strings).
    """
    total = int(counts.sum())
    if total == 0 or spec.startswith(("object", "str", "category", "bool")):
        return None
    if spec.startswith("datetime64"):
        return _iso(cells)
    best: Format | None = None
    most = _MOST * total
    for decimal in _decimals(cells, counts):
        _, good = decimal.parse(cells)
        covered = int(counts[good].sum())
        if covered > most or (best is None and covered >= most):
            best, most = decimal, covered
    if best is not None:
        return best
    sample = cells[:: max(1, len(cells) // 50)]
    others: list[Format] = []
    spelled = [m for m in map(_SCIENTIFIC.fullmatch, sample) if m is not None]
    if 2 * len(spelled) > len(sample):
        places = Counter(len(m[3]) for m in spelled).most_common(1)[0][0]
        others += [ScientificFormat(places, mark) for mark in "eE"]
    others.append(FloatFormat())  # last: it writes nine tenths of such numbers too, those without trailing zeros
    if spec == "time":
        others += [DateFormat("%H:%M:%S", "s"), DateFormat("%H:%M:%S.%f", "us")]
    if spec == "csv":
        if sum("," in cell for cell in sample) * 20 > len(sample):
            for marks in (".,", ",", ",."):
                others += _decimals(cells, counts, marks)
        others += [DateFormat(pattern, unit) for pattern, unit in _DATE_FORMATS]
    for candidate in others:
        # A glance at a few cells spares parsing all of them in every pattern.
        if candidate.parse(sample)[1].mean() > 0.5:
            _, good = candidate.parse(cells)
            if counts[good].sum() >= _MOST * total:
                return candidate
    return None


def _plain(cell: str, marks: str) -> str:
    """A number with other marks in plain ones; any other word as it is, or as one that is no number."""
    if "." in cell and marks[0] != "." and len(marks) == 1:
        return "?"
    return cell.replace(marks[1:], "").replace(marks[0], ".") if len(marks) > 1 else cell.replace(marks, ".")


def _decimals(cells: list[str], counts: np.ndarray, marks: str = ".") -> list[DecimalFormat]:
    """Decimal formats that the column might be written in."""
    affixes: Counter[tuple[str, str]] = Counter()
    matches = []
    for cell, count in zip(cells if marks == "." else [_plain(c, marks) for c in cells], counts.tolist()):
        match = _NUMERAL.fullmatch(cell)
        if match is not None:
            affixes[match[1], match[5]] += count
            matches.append(match)
    if not affixes:
        return []
    prefix, suffix = affixes.most_common(1)[0][0]
    matches = [m for m in matches if (m[1], m[5]) == (prefix, suffix)]
    whole = {len(m[3]) for m in matches}
    places = {len(m[4] or "") for m in matches}
    most = min(max(places), _DIGITS - min(max(whole), _DIGITS))
    widths = {1, max(whole)} if len(whole) == 1 and len(marks) == 1 else {1}
    found = []
    for width in sorted(widths):
        for least in sorted({most, 0, min(1, most)}, reverse=True):
            found.append(DecimalFormat(most, least, width, prefix, suffix, marks))
    return found


def _iso(cells: list[str]) -> Format | None:
    """The ISO format with the coarsest unit that holds all moments."""
    moments, good = moments_of(cells)
    if not good.all():
        return None
    for unit in ("D", "s", "ms", "us"):
        if bool((moments.astype(f"M8[{unit}]").astype("M8[ns]") == moments).all()):
            return DateFormat("iso", unit)
    return DateFormat("iso", "ns")
