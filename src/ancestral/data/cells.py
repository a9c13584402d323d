"""Typed table columns as exact strings and back."""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np

from ancestral.data.arrow import arrow_cells, arrow_series
from ancestral.errors import DataError

_ISO = re.compile(r"-?\d{4,}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d{3}|\.\d{6}|\.\d{9})?)?")

_OBJECTS: dict[type, tuple[str, Callable[[Any], str], Callable[[str], Any]]] = {
    bool: ("object", repr, "True".__eq__),
    int: ("int64", repr, int),
    float: ("float64", repr, float),
    Decimal: ("decimal", str, Decimal),
    datetime.date: ("datetime64[s]", str, lambda cell: np.datetime64(cell, "D").item()),
    datetime.time: ("time", str, datetime.time.fromisoformat),
    uuid.UUID: ("str", str, uuid.UUID),
}
"""Python's types in columns of objects: the plain type that their cells are like, how they are written and read."""


def to_cells(series: Any, name: str, strings: bool = False) -> tuple[np.ndarray, dict[str, Any]]:
    """A pandas column as strings that :func:`from_cells` turns back into the same column.

    Args:
        series: the pandas Series.
        name: of the column, for messages.
        strings: the column is known to hold str only (csv).

    Returns:
        cells: object ``[n]`` of str, None where missing.
        spec: JSON-able description of the type, for :func:`from_cells`.

    Raises:
        DataError: objects that are no plain values, or of several types.
    """
    import pandas as pd

    if strings:
        return series.to_numpy(dtype=object), {"dtype": "csv"}
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        inner, spec = to_cells(pd.Series(dtype.categories), name)
        codes = series.cat.codes.to_numpy()
        cells = np.append(inner, [None])[codes]  # code -1 is a missing cell
        return cells, {
            "dtype": "category",
            "inner": spec,
            "categories": list(inner),
            "ordered": bool(dtype.ordered),
        }
    if isinstance(dtype, pd.ArrowDtype):
        return arrow_cells(series, name)
    if getattr(dtype, "kind", "O") == "f":
        return _float_cells(series.to_numpy(dtype=str(dtype).lower(), na_value=np.nan)), {"dtype": str(dtype)}
    try:
        codes, uniques = pd.factorize(series, use_na_sentinel=True)
    except TypeError as error:
        row = next((i for i, value in enumerate(series) if getattr(value, "__hash__", None) is None), 0)
        what = type(series.iloc[row]).__name__
        raise DataError(f"column {name!r} holds a {what} in row {row}; turn it into columns of plain values") from error
    types = {type(v) for v in uniques} if str(dtype) == "object" else set()
    if types == {float}:
        cells = _float_cells(series.to_numpy(dtype=np.float64, na_value=np.nan))
        return cells, {"dtype": _OBJECTS[float][0], "object": "float"}
    if types == {Decimal}:  # cell by cell, since 1.0 and 1.00 are equal
        cells = _strings([None if code < 0 else str(v) for v, code in zip(series, codes)], lambda cell: cell)
        return cells, {"dtype": _OBJECTS[Decimal][0], "object": "Decimal"}
    text, spec = _unique_cells(uniques, dtype, name, codes)
    return np.append(text, [None])[codes], spec


def _float_cells(values: np.ndarray) -> np.ndarray:
    """The shortest digits that give each number back at its own precision, None for NaN."""
    import pandas as pd

    # By bit pattern, since 0.0 and -0.0 are equal and yet two cells.
    codes, bits = pd.factorize(values.view(f"i{values.itemsize}"))
    uniques = bits.view(values.dtype)
    write = repr if values.dtype == np.float64 else str
    numbers = uniques.tolist() if values.dtype == np.float64 else list(uniques)
    return _strings([None if v != v else v for v in numbers], lambda v: None if v is None else write(v))[codes]


def _unique_cells(uniques: Any, dtype: Any, name: str, codes: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Strings of the distinct values that are not missing, and the type's description."""
    import pandas as pd

    spec: dict[str, Any] = {"dtype": str(dtype)}
    kind = getattr(dtype, "kind", "O")
    if isinstance(dtype, pd.DatetimeTZDtype):
        spec = {"dtype": f"datetime64[{dtype.unit}]", "tz": str(dtype.tz)}
        return datetime_cells(np.asarray(uniques.tz_convert("UTC").tz_localize(None))), spec
    if kind == "M":
        return datetime_cells(np.asarray(uniques)), spec
    if kind == "m":
        return _strings(np.asarray(uniques).view("i8").tolist(), str), spec
    if kind == "b":
        return _strings(list(uniques), lambda v: str(bool(v))), spec
    if kind in "iu":
        return _strings(list(uniques), lambda v: str(int(v))), spec
    values = list(uniques)
    types = {type(v) for v in values}
    if types <= {str}:
        return _strings(values, str), spec
    for plain, (like, write, _) in _OBJECTS.items():
        if types == {plain}:
            return _strings(values, write), {"dtype": like, "object": plain.__name__}
    first = type(values[0])
    place = next((i for i, value in enumerate(values) if type(value) is not first), 0)
    row = int(np.flatnonzero(codes == place)[0])
    odd = f"values of type {first.__name__}"
    if len(types) > 1:
        odd = f"values of several types ({first.__name__}, and in row {row} {type(values[place]).__name__})"
    raise DataError(f"column {name!r} holds {odd}; turn it into one plain type, for instance with .astype(str)")


def _strings(values: list[Any], function: Any) -> np.ndarray:
    out = np.empty(len(values), dtype=object)
    out[:] = [function(v) for v in values]
    return out


def datetime_cells(moments: np.ndarray) -> np.ndarray:
    """ISO 8601 strings, object, of datetime64 values, each as short as can be (date, seconds, fractions)."""
    moments = np.asarray(moments)
    cells = np.empty(len(moments), dtype=object)
    left = np.ones(len(moments), dtype=bool)
    for unit in ("D", "s", "ms", "us", "ns"):
        short = moments.astype(f"datetime64[{unit}]")
        fits = left & (short.astype(moments.dtype) == moments)
        if fits.any():
            cells[fits] = np.datetime_as_string(short[fits], unit=unit).tolist()
        left &= ~fits
    return cells


def moments_of(cells: list[str], unit: str = "ns") -> tuple[np.ndarray, np.ndarray]:
    """datetime64 values of ISO 8601 strings, and a mask of the strings written exactly as above."""
    good = np.array([_ISO.fullmatch(c) is not None for c in cells], dtype=bool)
    moments = np.zeros(len(cells), dtype=f"datetime64[{unit}]")
    for i in np.flatnonzero(good):
        try:
            moments[i] = np.array(cells[i], dtype=moments.dtype)
        except (ValueError, OverflowError):
            good[i] = False
    if good.any():
        good[good] = datetime_cells(moments[good]) == np.array([c for c, g in zip(cells, good) if g], dtype=object)
    return moments, good


def from_cells(cells: np.ndarray, spec: dict[str, Any]) -> Any:
    """The pandas Series that :func:`to_cells` gave these cells and this spec for."""
    import pandas as pd

    name = spec["dtype"]
    if "arrow" in spec:
        return arrow_series(cells, spec)
    if name == "csv":
        missing = pd.isna(cells)
        return pd.Series(np.where(missing, "", cells) if missing.any() else cells, dtype=object)
    if name == "category":
        categories = from_cells(np.array(spec["categories"], dtype=object), spec["inner"])
        table = {c: i for i, c in enumerate(spec["categories"])}
        chosen = [-1 if c is None else table.get(c, -1) for c in cells]
        return pd.Series(pd.Categorical.from_codes(chosen, categories=categories, ordered=spec["ordered"]))
    codes, uniques = pd.factorize(cells, use_na_sentinel=True)
    values = _typed(list(uniques), spec)
    missing = codes < 0
    if "object" in spec:
        return pd.Series(np.append(_strings(values, lambda value: value), [None])[codes], dtype=object)
    if name.startswith(("datetime64", "timedelta64")):
        array = np.concatenate([values, np.array(["NaT"], dtype=values.dtype)])[codes]
        series = pd.Series(array)
        return series.dt.tz_localize("UTC").dt.tz_convert(spec["tz"]) if "tz" in spec else series
    if name in ("object", "str", "string") or name.startswith("string"):
        array = np.append(np.array([*values, None], dtype=object)[:-1], [None])[codes]
        return pd.Series(array, dtype=name if name != "object" else object)
    if not missing.any():
        # Whole numbers beyond int64 among smaller ones would be floats without their type.
        whole = name.lower() if name.lower().startswith(("int", "uint")) else None
        return pd.Series(np.asarray(values, dtype=whole)[codes] if len(values) else np.zeros(0), dtype=name)
    if name.startswith("float"):
        return pd.Series(np.append(np.asarray(values, dtype=name), np.nan)[codes].astype(name))
    array = np.append(np.array([*values, None], dtype=object)[:-1], [None])[codes]
    return pd.Series(array, dtype=_nullable(name))


def as_given(cell: str | None, own: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    """A cell of a column of type ``own`` in one of type ``wanted``: a missing one is empty in a csv, None elsewhere."""
    if wanted["dtype"] == "csv":
        return "" if cell is None else cell
    return None if cell == "" and own["dtype"] == "csv" else cell


def widened(wanted: dict[str, Any], own: dict[str, Any]) -> bool:
    """Whether a column of type ``own`` has become ``wanted`` because pandas had no place for its gaps."""
    whole = own["dtype"].lower().startswith(("int", "uint", "bool"))
    return whole and wanted["dtype"] in ("float32", "float64", "object")


def holding(cells: np.ndarray, wanted: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The first type that can hold all ``cells``: the one that is ``wanted``, else ``own``, else plain strings."""
    for spec in (wanted, own):
        try:
            back, _ = to_cells(from_cells(cells, spec), "", spec["dtype"] == "csv")
        except (DataError, ValueError, TypeError, OverflowError):
            continue
        if all((a is None) == (b is None) for a, b in zip(cells, back)):
            return spec
    return {"dtype": "object"}


def _nullable(name: str) -> str:
    """The pandas type that has a place for missing integers and truth values."""
    if name in ("bool", "boolean"):
        return "boolean"
    return name.replace("uint", "UInt").replace("int", "Int") if name[0].islower() else name


def _typed(cells: list[str], spec: dict[str, Any]) -> Any:
    """Values of distinct cells."""
    name = spec["dtype"]
    if "object" in spec:
        read = next(read for plain, (_, _, read) in _OBJECTS.items() if plain.__name__ == spec["object"])
        return [read(c) for c in cells]
    if name in ("bool", "boolean"):
        return [c == "True" for c in cells]
    if name.startswith("datetime64"):
        return np.array([np.datetime64(c) for c in cells], dtype=name)
    if name.startswith("timedelta64"):
        return np.array([int(c) for c in cells], dtype="i8").view(name)
    lower = name.lower()
    if lower.startswith(("int", "uint")):
        return [int(c) for c in cells]
    if lower.startswith("float"):
        return [np.dtype(lower).type(c) for c in cells]
    return cells
