"""Rows that belong to keys and follow each other in time: sorted, with gaps in place of times, as small integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ancestral.data import read
from ancestral.data.cells import datetime_cells, from_cells
from ancestral.data.table import Table
from ancestral.errors import DataError
from ancestral.tokenizers.columns import Columns

if TYPE_CHECKING:
    import pandas

_UNITS = ("D", "s", "ms", "us", "ns")
_WRITTEN = {"D": "%Y-%m-%d", "s": "%Y-%m-%dT%H:%M:%S"}


@dataclass
class Encoded:
    """Keys with their rows, as symbols.

    Attributes:
        keys: ``[n]``.
        context: int64 ``[n, Nc]``: the context table's columns and the first time.
        length: int64 ``[n]``: rows of every key.
        rows: int64 ``[sum of length, Nr]``: the gap and the other columns, key after key.
        clock: float32 ``[sum of length, 2]``: gap and time of every row, see :meth:`EventCodec.clock`.
        ticks: int64 ``[sum of length]``: the rows' times.
    """

    keys: pandas.Index
    context: Tensor
    length: Tensor
    rows: Tensor
    clock: Tensor
    ticks: np.ndarray


class EventCodec:
    """A table of rows and its context table <-> symbols.

    The first time of a key is a column of its context; every later row tells the gap since the row before.

    Args:
        key: column of the rows that names what they belong to.
        time: column of the rows with dates, moments or whole numbers.
        context_key: the key's name in the context table, if another.
    """

    def __init__(self, key: str, time: str, context_key: str | None = None) -> None:
        self.key, self.time, self.context_key = key, time, context_key or key
        self.context, self.gap, self.others = Columns(), Columns(), Columns()
        self.unit, self.span, self.form = "", (0, 1), ""
        self.zone: str | None = None
        self.written: dict[str, Any] = {}  # how the times are
        self.outer: dict[str, dict[str, Any]] = {}  # of the rows and of the context table
        self.has_context = False

    # -- fitting and encoding

    def fit(self, rows: Any, context: Any = None) -> Encoded:
        """Learn the columns' symbols; returns the encoded tables.

        Raises:
            DataError: tables that do not fit together.
        """
        table, told = self._read(rows, context)
        self.has_context = told is not None
        self._choose_unit(table)
        self.outer = {name: _outer(each) for name, each in (("rows", table), ("context", told)) if each is not None}
        sorted_rows, keys, length, ticks = self._sorted(table, told)
        starts = np.cumsum(length) - length
        self.span = (int(ticks.min()), max(int(ticks.max()), int(ticks.min()) + 1))
        self.context.fit(self._context_table(told, keys, length, ticks, starts))
        self.gap.fit(self._gap_table(_gaps(ticks, length)[~_first(length)]))
        if sorted_rows.shape[1]:
            self.others.fit(Table(sorted_rows, kind=self.form))
        return self.encode(rows, context)

    def encode(self, rows: Any, context: Any = None) -> Encoded:
        """The tables as symbols; every key of the context table is one item, in its order.

        Raises:
            DataError: tables that do not fit together or lack columns.
        """
        table, told = self._read(rows, context)
        if self.has_context and told is None:
            raise DataError("the model knows a context table; give context= as well")
        sorted_rows, keys, length, ticks = self._sorted(table, told)
        starts = np.cumsum(length) - length
        encoded = self.context.encode(self._context_table(told, keys, length, ticks, starts))
        gaps, first = _gaps(ticks, length), _first(length)
        symbols = torch.zeros(len(ticks), self.gap.space.n, dtype=torch.int64)
        if (~first).any():
            symbols[torch.from_numpy(~first)] = self.gap.encode(self._gap_table(gaps[~first]))
        parts = [symbols]
        if sorted_rows.shape[1] and len(sorted_rows):
            parts.append(self.others.encode(Table(sorted_rows, kind=table.kind)))
        elif self.others._codecs:
            parts.append(torch.zeros(len(ticks), self.others.space.n, dtype=torch.int64))
        clock = self.clock(torch.from_numpy(np.where(first, 0, gaps)), torch.from_numpy(ticks))
        return Encoded(keys, encoded, torch.from_numpy(length), torch.cat(parts, 1), clock, ticks)

    def clock(self, gaps: Tensor, ticks: Tensor) -> Tensor:
        """What the network is told of a row's time: float32 ``[..., 2]``, log of the gap and share of the span."""
        low, high = self.span
        share = (ticks - low).double() / (high - low)
        scale = torch.log1p(torch.tensor(float(high - low), dtype=torch.float64))
        return torch.stack([torch.log1p(gaps.clamp_min(0).double()) / scale, share], -1).float()

    def _read(self, rows: Any, context: Any) -> tuple[Table, Table | None]:
        table = read(rows, "table").loaded()
        assert isinstance(table, Table)
        for name in (self.key, self.time):
            if name not in table.columns:
                raise DataError(f"the rows have no column {name!r}; they have {', '.join(map(repr, table.columns))}")
        if context is None:
            return table, None
        told = read(context, "table").loaded()
        assert isinstance(told, Table)
        if self.context_key not in told.columns:
            raise DataError(
                f"the context table has no column {self.context_key!r} for the key; name it with context_key=, one of "
                f"{', '.join(map(repr, told.columns))}"
            )
        return table, told

    def _sorted(self, table: Table, told: Table | None) -> tuple[Any, pandas.Index, np.ndarray, np.ndarray]:
        """The rows' other columns sorted by key and time, the keys, their lengths, and the rows' times."""
        import pandas as pd

        named = table.frame[self.key]
        if named.isna().any():
            raise DataError(f"row {int(np.argmax(named.isna()))} has no key {self.key!r}; every row belongs to one")
        if told is None:
            keys = pd.Index(named.unique())
        else:
            keys = pd.Index(told.frame[self.context_key])
            if not keys.is_unique:
                row = int(np.argmax(keys.duplicated()))
                raise DataError(
                    f"the context table has the key {_shown(keys[row])} a second time in row {row}; keep one"
                )
        number = keys.get_indexer(pd.Index(named))
        if (number < 0).any():
            row = int(np.argmax(number < 0))
            raise DataError(
                f"row {row} belongs to the key {_shown(named.iloc[row])}, which the context table lacks; add it there"
            )
        ticks = self._ticks(table)
        order = np.lexsort((ticks, number))
        length = np.bincount(number, minlength=len(keys)).astype(np.int64)
        frame = table.frame.drop(columns=[self.key, self.time]).iloc[order].reset_index(drop=True)
        return frame, keys, length, ticks[order]

    # -- times

    def _moments(self, table: Table) -> Any:
        import pandas as pd

        column = table.frame[self.time]
        if isinstance(column.dtype, pd.ArrowDtype):
            cells = table.cells(self.time)
            column = from_cells(cells, {"dtype": table.schema[self.time]["dtype"]})
        if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
            return column
        numbers = pd.to_numeric(column, errors="coerce")
        if numbers.notna().all():
            return numbers
        moments = pd.to_datetime(column, errors="coerce", format="ISO8601")
        if moments.isna().any():
            row = int(np.argmax(moments.isna()))
            raise DataError(
                f"row {row} has the time {_shown(column.iloc[row])}; give a date, a moment or a whole number"
            )
        return moments

    def _choose_unit(self, table: Table) -> None:
        """The coarsest unit that holds all times exactly."""
        import pandas as pd

        table.cells(self.time)
        self.form, self.written = table.kind, table.schema[self.time]
        self.written = self.written.get("inner", self.written)  # drawn times need not be among the categories
        moments = self._moments(table)
        if pd.api.types.is_datetime64_any_dtype(moments):
            values = _plain(moments.dropna()).to_numpy()
            self.unit = next(u for u in _UNITS if bool((values == values.astype(f"M8[{u}]")).all()))
            self.zone = None if moments.dt.tz is None else str(moments.dt.tz)
            return
        self.unit, self.zone = "", None

    def _ticks(self, table: Table) -> np.ndarray:
        """Times as int64 in the unit.

        Raises:
            DataError: a missing time, or a number that is not whole.
        """
        import pandas as pd

        moments = self._moments(table)
        if moments.isna().any():
            raise DataError(f"row {int(np.argmax(moments.isna()))} has no {self.time!r}; every row needs its time")
        dated = pd.api.types.is_datetime64_any_dtype(moments)
        if dated != bool(self.unit):
            raise DataError(f"{self.time!r} holds {'dates' if dated else 'numbers'} unlike the table of the fit")
        if dated:
            return _plain(moments).to_numpy().astype(f"M8[{self.unit}]").view(np.int64)
        values = moments.to_numpy(dtype=float)
        if (values != np.round(values)).any():
            row = int(np.argmax(values != np.round(values)))
            raise DataError(f"row {row} has the time {values[row]}; give whole numbers, for instance of seconds")
        return values.astype(np.int64)

    def times(self, ticks: np.ndarray) -> Any:
        """The times, in the type that the training table has them in, of int64 ticks."""
        import pandas as pd

        if not self.unit:
            numbers = ticks.astype(str).astype(object)
            return pd.Series(ticks) if self.form == "csv" else from_cells(numbers, self.written)
        if not self.written["dtype"].startswith(("csv", "str", "object")):
            return from_cells(datetime_cells(ticks.view(f"M8[{self.unit}]")), self.written)
        moments = pd.Series(ticks.view(f"M8[{self.unit}]").astype("M8[s]" if self.unit == "D" else f"M8[{self.unit}]"))
        pattern = _WRITTEN.get(self.unit, "%Y-%m-%dT%H:%M:%S.%f")
        if self.zone is not None:
            moments, pattern = moments.dt.tz_localize("UTC").dt.tz_convert(self.zone), pattern + "%z"
        return from_cells(moments.dt.strftime(pattern).to_numpy(dtype=object), self.written)

    def native(self, frame: Any, which: str) -> Any:
        """A frame of the ``rows`` or of the ``context`` as the training table's library has it."""
        form = self.outer.get(which, {"kind": "csv"})
        return frame if form["kind"] == "csv" else Table(frame, **form).native()

    # -- tables

    @property
    def first_time(self) -> str:
        """Name of the context's column with the first time of a key."""
        return f"first {self.time}"

    def _context_table(
        self, told: Table | None, keys: pandas.Index, length: np.ndarray, ticks: np.ndarray, starts: np.ndarray
    ) -> Table:
        import pandas as pd

        frame = pd.DataFrame(index=range(len(keys)))
        if told is not None:
            frame = told.frame.drop(columns=self.context_key)
        first = np.zeros(len(keys), dtype=np.int64)
        first[length > 0] = ticks[starts[length > 0]] if len(ticks) else 0
        written = pd.Series(first.astype(str), dtype=object).where(pd.Series(length > 0), "")
        typed = (
            written if told is not None and told.kind == "csv" else pd.Series(first).where(length > 0).astype("Int64")
        )
        return Table(frame.assign(**{self.first_time: typed}), kind=self.form if told is None else told.kind)

    def _gap_table(self, gaps: np.ndarray) -> Table:
        import pandas as pd

        return Table(pd.DataFrame({"gap": gaps if len(gaps) else np.zeros(1, np.int64)}))

    # -- saving

    def state(self) -> dict[str, Any]:
        """Plain JSON content; see :meth:`load_state`."""
        plain = ("key", "time", "context_key", "unit", "span", "form", "has_context", "zone", "written", "outer")
        parts = {name: getattr(self, name).state() for name in ("context", "gap", "others")}
        return {name: getattr(self, name) for name in plain} | parts

    def load_state(self, state: dict[str, Any]) -> None:
        """Become the codec that :meth:`state` described."""
        for name in ("context", "gap", "others"):
            getattr(self, name).load_state(state[name])
        for name in ("key", "time", "context_key", "unit", "form", "has_context", "zone"):
            setattr(self, name, state[name])
        # Models of before these were kept have moments or plain words.
        self.written = state.get("written", {"dtype": self.form if self.form == "csv" else f"datetime64[{self.unit}]"})
        self.outer = state.get("outer", {})
        self.span = (state["span"][0], state["span"][1])


def typed(table: Table) -> Any:
    """The columns in their own types; those of a csv as pandas reads them."""
    return table.native() if table.kind == "csv" else table.frame


def _outer(table: Table) -> dict[str, Any]:
    """How the source has its rows, for :class:`Table`."""
    return {"kind": table.kind, "fields": table.fields, "numbered": table.numbered}


def _plain(moments: Any) -> Any:
    """Moments without a time zone: those of UTC."""
    return moments if moments.dt.tz is None else moments.dt.tz_convert("UTC").dt.tz_localize(None)


def _first(length: np.ndarray) -> np.ndarray:
    """Bool ``[sum of length]``: the first row of its key."""
    first = np.zeros(int(length.sum()), dtype=bool)
    first[(np.cumsum(length) - length)[length > 0]] = True
    return first


def _gaps(ticks: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Time since the row before, int64; at first rows it means nothing."""
    return np.diff(ticks, prepend=ticks[:1])


def _shown(key: Any) -> str:
    """A key as it is written: 101, not np.int64(101)."""
    return repr(key.item() if hasattr(key, "item") else key)
