"""Arrow's column types as exact strings and back, and frames of Arrow's kind: polars, Arrow tables, streams."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import numpy as np

from ancestral.errors import DataError

_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def write_field(field: Any) -> str:
    """An Arrow field (name, type, metadata) as text, for JSON; see :func:`read_field`."""
    import pyarrow as pa

    return base64.b64encode(pa.schema([field]).serialize().to_pybytes()).decode("ascii")


def read_field(text: str) -> Any:
    """The field that :func:`write_field` wrote."""
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text))).field(0)


def plain_fields(types: dict[str, str]) -> dict[str, str]:
    """Fields as text, by name, of columns by the names of their types (``int64``, ``double``, ``bool``)."""
    import pyarrow as pa

    return {name: write_field(pa.field(name, pa.type_for_alias(kind))) for name, kind in types.items()}


def arrow_cells(series: Any, name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """A pandas column of an Arrow type as strings that :func:`arrow_series` turns back.

    Args:
        series: pandas Series of an ``ArrowDtype``.
        name: of the column, for messages.

    Returns:
        cells: object ``[n]`` of str, None where missing (a NaN that is not missing is ``nan``).
        spec: JSON-able, its ``dtype`` the plain type that the cells are like.

    Raises:
        DataError: bytes and nested types.
    """
    import pyarrow as pa

    array = pa.array(series)
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    cells, like = _cells(array, name)
    return cells, {"dtype": like, "arrow": write_field(pa.field("", array.type))}


def arrow_series(cells: np.ndarray, spec: dict[str, Any]) -> Any:
    """The pandas Series of an Arrow type that :func:`arrow_cells` gave these cells and this spec for."""
    import pandas as pd

    kind = read_field(spec["arrow"]).type
    return pd.Series(pd.arrays.ArrowExtensionArray(_array(cells, kind)))


def _cells(array: Any, name: str) -> tuple[np.ndarray, str]:
    """Cells of an Arrow array, and the plain type that they are like."""
    import pandas as pd
    import pyarrow as pa

    from ancestral.data.cells import to_cells

    kind, is_ = array.type, pa.types
    if is_.is_null(kind):
        return np.full(len(array), None, dtype=object), "str"
    if is_.is_dictionary(kind):
        return _cells(array.dictionary_decode(), name)
    if is_.is_boolean(kind) or is_.is_integer(kind):
        target: Any = pd.BooleanDtype() if is_.is_boolean(kind) else pd.Series([], dtype=str(kind)).dtype
        nullable = {"int": "Int", "uint": "UInt"}
        if is_.is_integer(kind):
            target = str(target).replace("uint", nullable["uint"]) if "uint" in str(target) else str(target).title()
        plain = array.to_pandas(types_mapper=lambda _: pd.api.types.pandas_dtype(target))
        cells, spec = to_cells(plain, name)
        return cells, spec["dtype"]
    if is_.is_floating(kind):
        plain = pd.Series(array.to_numpy(zero_copy_only=False).astype(kind.to_pandas_dtype()))
        cells, spec = to_cells(plain, name)
        cells[plain.isna().to_numpy() & array.is_valid().to_numpy(zero_copy_only=False)] = "nan"
        return cells, spec["dtype"]
    if is_.is_timestamp(kind) or is_.is_date(kind) or is_.is_duration(kind):
        unit = "s" if is_.is_date(kind) else kind.unit
        number = array.cast(pa.timestamp("s")) if is_.is_date(kind) else array
        ticks = number.cast(pa.int64()).fill_null(0).to_numpy()
        dtype = f"{'timedelta64' if is_.is_duration(kind) else 'datetime64'}[{unit}]"
        values = ticks.view(dtype.replace("datetime64", "M8").replace("timedelta64", "m8")).copy()
        values[array.is_null().to_numpy(zero_copy_only=False)] = "NaT"
        cells, spec = to_cells(pd.Series(values), name)
        return cells, spec["dtype"]
    if is_.is_decimal(kind):
        return _map(array, lambda v: format(v, "f")), "decimal"
    if is_.is_time(kind):
        # Whole seconds without a fraction, as clocks are read.
        return _map(array.cast(pa.string()), lambda v: v.rstrip("0").rstrip(".") if "." in v else v), "time"
    if is_.is_string(kind) or is_.is_large_string(kind) or str(kind) == "string_view":
        return np.array([*array.to_pylist(), None], dtype=object)[:-1], "str"
    raise DataError(f"column {name!r} has the Arrow type {kind}; turn it into a column of plain values, or drop it")


def _map(array: Any, write: Any) -> np.ndarray:
    """Cells of an array by way of its distinct values."""
    encoded = array.dictionary_encode()
    texts = [write(v) for v in encoded.dictionary.to_pylist()]
    codes = encoded.indices.fill_null(len(texts)).to_numpy()
    return np.array([*texts, None, None], dtype=object)[:-1][codes]


def _array(cells: np.ndarray, kind: Any) -> Any:
    """The Arrow array of the type ``kind`` that :func:`_cells` gave these cells for."""
    import pyarrow as pa

    is_ = pa.types
    if is_.is_dictionary(kind):
        inner = _array(cells, kind.value_type).dictionary_encode()
        return pa.DictionaryArray.from_arrays(
            inner.indices.cast(kind.index_type), inner.dictionary, ordered=kind.ordered
        )
    read: Any = str
    through = kind
    if is_.is_null(kind):
        return pa.nulls(len(cells))
    if is_.is_boolean(kind):
        read = "True".__eq__
    elif is_.is_integer(kind):
        read = int
    elif is_.is_floating(kind):
        read, through = float, pa.float64()
    elif is_.is_timestamp(kind):
        read, through = (lambda c: int(np.datetime64(c, kind.unit).astype(np.int64))), pa.int64()
    elif is_.is_date(kind):
        read, through = (lambda c: np.datetime64(c, "D").item()), pa.date32()
    elif is_.is_duration(kind):
        read, through = int, pa.int64()
    elif is_.is_decimal(kind):
        read = Decimal
    elif is_.is_time(kind):
        read = lambda c: _clock(c, kind.unit)  # noqa: E731
        through = pa.int32() if kind.bit_width == 32 else pa.int64()
    import pandas as pd

    codes, uniques = pd.factorize(cells, use_na_sentinel=True)
    distinct = pa.array([read(c) for c in uniques], through)
    taken = distinct.take(pa.array(codes, mask=codes < 0)) if len(uniques) else pa.nulls(len(cells), through)
    return taken if taken.type == kind else taken.cast(kind)


def _clock(cell: str, unit: str) -> int:
    """Ticks since midnight of ``HH:MM:SS.fraction``."""
    hours, minutes, rest = cell.split(":")
    whole, _, fraction = rest.partition(".")
    seconds = (int(hours) * 60 + int(minutes)) * 60 + int(whole)
    return seconds * _TICKS[unit] + int(fraction.ljust(9, "0")[:9] or 0) * _TICKS[unit] // 10**9


def from_arrow_kind(source: Any) -> tuple[Any, dict[str, str]] | None:
    """A pandas frame of Arrow types, and the fields as text, of anything of Arrow's kind; None of anything else.

    Args:
        source: polars DataFrame or LazyFrame, Arrow table, record batch or dataset, or any object that offers
            ``__arrow_c_stream__``.
    """
    import pandas as pd
    import pyarrow as pa

    if isinstance(source, pd.DataFrame):
        return None
    if type(source).__name__ == "LazyFrame" and hasattr(source, "collect"):
        source = source.collect()
    if isinstance(source, pa.RecordBatch):
        table = pa.Table.from_batches([source])
    elif isinstance(source, pa.Table):
        table = source
    elif hasattr(source, "to_arrow") and type(source).__module__.partition(".")[0] == "polars":
        table = source.to_arrow()
    elif hasattr(source, "to_table"):
        table = source.to_table()
    elif hasattr(source, "__arrow_c_stream__"):
        try:
            table = pa.table(source)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DataError(
                f"a table cannot be read from a {type(source).__name__}, which has no named columns; give a "
                "DataFrame, of a single column .to_frame()"
            ) from error
    else:
        return None
    frame = table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    return frame, {str(field.name): write_field(field) for field in table.schema}


def to_arrow(frame: Any, fields: dict[str, str]) -> Any:
    """An Arrow table of a pandas frame, its columns in the given fields where their values fit them."""
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    for number, name in enumerate(table.column_names):
        if name not in fields:
            continue
        field = read_field(fields[name])
        column = table.column(number)
        try:
            column = column if column.type == field.type else column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
        table = table.set_column(
            number, field if field.nullable or not column.null_count else field.with_nullable(True), column
        )
    return table


def on_rows_of(result: Any, source: Any) -> Any:
    """A pandas Series or DataFrame with the index of ``source``, if that is a DataFrame with one of its own.

    A row's label is repeated where it has several results, which lie next to each other.
    """
    import pandas as pd

    if not isinstance(source, pd.DataFrame) or not isinstance(result, (pd.Series, pd.DataFrame)) or source.empty:
        return result
    if source.index.equals(pd.RangeIndex(len(source))):
        return result
    return result.set_axis(source.index.repeat(len(result) // len(source)))


def of_kind(result: Any, source: Any) -> Any:
    """A pandas Series or DataFrame as polars or Arrow has it, if ``source`` is of theirs; names become words.

    If ``source`` is a pandas DataFrame, the result has its index.
    """
    import pandas as pd
    import pyarrow as pa

    owner = type(source).__module__.partition(".")[0]
    if owner not in ("polars", "pyarrow"):
        return on_rows_of(result, source)
    if isinstance(result, pd.DataFrame):
        table = pa.Table.from_pandas(
            result.set_axis([str(name) for name in result.columns], axis=1), preserve_index=False
        )
        table = table.replace_schema_metadata(None)
        if owner == "pyarrow":
            return table
        import polars  # type: ignore[import-not-found, unused-ignore]

        return polars.from_arrow(table)
    array = pa.Array.from_pandas(result)
    if owner == "pyarrow":
        return array
    import polars

    return polars.Series(str(result.name), polars.from_arrow(array))
