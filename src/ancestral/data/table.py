"""Tables of mixed columns: from csv, parquet and data frames; back to the same, cell for cell."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ancestral.data.arrow import from_arrow_kind, on_rows_of, to_arrow, write_field
from ancestral.data.base import Dataset, existing, positions, read_bytes
from ancestral.data.cells import from_cells, to_cells
from ancestral.errors import DataError
from ancestral.files import atomic_path

if TYPE_CHECKING:
    import pandas

SEPARATED = (".csv", ".tsv", ".tab", ".csv.gz", ".tsv.gz")
SUFFIXES = (*SEPARATED, ".parquet", ".pq")
CSV = {"dtype": "csv"}
"""Schema of a csv's column."""
_SEPARATORS = (",", ";", "\t", "|")


class Table(Dataset):
    """n rows of named columns.

    Attributes:
        frame: the rows. From csv every cell is the exact string of the file, so that it can be given back;
            kinds are inferred by the tokenizer.
        schema: per column a JSON-able description of its type (see :func:`ancestral.data.cells.to_cells`).
        separator: between the cells of a csv.
        header: whether a csv's first row holds the names.
        fields: of a polars frame, an Arrow table or a parquet file: the columns' Arrow fields, as text.
        numbered: whether the names are whole numbers in the source's frame; here they are words.
    """

    modality = "table"

    def __init__(
        self,
        frame: pandas.DataFrame,
        labels: Any = None,
        classes: Sequence[str] = (),
        names: Sequence[str] | None = None,
        kind: str = "frame",
        separator: str = ",",
        header: bool = True,
        fields: dict[str, str] | None = None,
        numbered: bool | None = None,
    ) -> None:
        whole = all(isinstance(c, (int, np.integer)) and not isinstance(c, bool) for c in frame.columns)
        self.numbered = whole if numbered is None else numbered
        columns = [str(c) for c in frame.columns]
        _distinct(columns, "the table")
        if not columns:
            raise DataError("the table has no columns; give at least one")
        self.frame = frame.set_axis(columns, axis=1).reset_index(drop=True)
        self.separator, self.header, self.fields = separator, header, fields or {}
        self._cells: dict[str, np.ndarray] = {}
        self._coded: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # of a csv's columns: codes, distinct cells
        self.schema: dict[str, dict[str, Any]] = {}
        super().__init__(labels, classes, names, kind)

    @property
    def columns(self) -> list[str]:
        """The column names, in order."""
        return list(self.frame.columns)

    def __len__(self) -> int:
        return len(self.frame)

    def cells(self, column: str) -> np.ndarray:
        """The column as exact strings, object ``[n]``, None where a typed cell is missing.

        Raises:
            DataError: the column holds Python objects that are no plain values.
        """
        if column not in self._cells:
            self._cells[column], self.schema[column] = to_cells(self.frame[column], column, self.kind == "csv")
        return self._cells[column]

    @classmethod
    def from_cells(cls, cells: dict[str, np.ndarray], schema: dict[str, dict[str, Any]], kind: str) -> Self:
        """The table with these cells: the inverse of :meth:`cells` and :attr:`schema`."""
        import pandas as pd

        series = {name: from_cells(column, schema[name]) for name, column in cells.items()}
        return cls(pd.DataFrame(series), kind=kind)

    @classmethod
    def from_codes(
        cls, coded: dict[str, tuple[np.ndarray, np.ndarray]], schema: dict[str, dict[str, Any]], kind: str
    ) -> Self:
        """As :meth:`from_cells`, of columns as codes int64 ``[n]`` and the cells they stand for, object ``[m]``.

        What is read of a csv's cells is then read of these only.
        """
        import pandas as pd

        if any(schema[name] != CSV for name in coded):
            return cls.from_cells({name: cells[codes] for name, (codes, cells) in coded.items()}, schema, kind)
        full = {name: (codes, np.where(pd.isna(cells), "", cells)) for name, (codes, cells) in coded.items()}
        series = {name: pd.Series(cells[codes], dtype=object, copy=False) for name, (codes, cells) in full.items()}
        table = cls(pd.DataFrame(series, copy=False), kind=kind)
        table._coded = full
        return table

    def take(self, indices: Any) -> Self:
        index = positions(indices, len(self))
        return self.with_frame(self.frame.iloc[index], **self._shared(index))

    def with_frame(self, frame: pandas.DataFrame, **changes: Any) -> Self:
        """Other rows or columns in the same outer form."""
        form = {name: getattr(self, name) for name in ("kind", "separator", "header", "fields", "numbered")}
        return type(self)(frame, **{**form, **changes})

    @property
    def form(self) -> dict[str, Any]:
        own: dict[str, Any] = {"separator": self.separator, "header": self.header}
        own |= {"fields": self.fields} if self.fields else {}
        return super().form | own | ({"numbered": True} if self.numbered else {})

    def with_form(self, form: dict[str, Any]) -> Self:
        other = super().with_form(form)
        if other.kind == "csv" and self.kind != "csv":  # a csv holds strings only
            other.frame = self.from_cells(
                {n: self.cells(n) for n in self.columns}, dict.fromkeys(self.columns, CSV), "csv"
            ).frame
        other.separator, other.header = form.get("separator", ","), bool(form.get("header", True))
        other.fields, other.numbered = dict(form.get("fields", {})), bool(form.get("numbered", False))
        other._coded = dict(self._coded) if other.kind == "csv" else {}
        return other

    def native(self) -> Any:
        """The source's pandas or polars DataFrame or Arrow table; for csv and
        parquet what pandas reads of them."""
        import pandas as pd

        if self.kind == "csv":
            return pd.DataFrame({name: self._as_read(name) for name in self.columns}, copy=False)
        if self.kind in ("arrow", "polars", "parquet"):
            table = to_arrow(self.frame, self.fields)
            if self.kind == "parquet":
                return table.to_pandas()
            if self.kind == "arrow":
                return table
            try:
                import polars  # type: ignore[import-not-found, unused-ignore]
            except ImportError:
                return self.frame
            return polars.from_arrow(table)
        if self.numbered and all(name.lstrip("-").isdigit() for name in self.columns):
            return self.frame.set_axis([int(name) for name in self.columns], axis=1)
        return self.frame

    def completed(self, source: Any) -> Any:
        return on_rows_of(self.native(), source)

    def _as_read(self, column: str) -> pandas.Series:
        """The column that pandas reads of a csv with these cells; only distinct ones are parsed."""
        import pandas as pd

        if column in self._coded:
            codes, cells = self._coded[column]
            occurs = np.bincount(codes, minlength=len(cells)) > 0  # the others must not tell what the column is
            return _parsed(list(cells[occurs])).take((occurs.cumsum() - 1)[codes]).reset_index(drop=True)
        codes, distinct = pd.factorize(self.cells(column), use_na_sentinel=True)
        # The missing cell's code is -1, which takes the last.
        words = ["" if c is None else c for c in (*distinct, *([None] if (codes < 0).any() else []))]
        return _parsed(words).take(codes).reset_index(drop=True)

    def save(self, target: str | Path, overwrite: bool = False) -> None:
        """Write csv, tsv (either may end in .gz) or parquet, as the suffix says."""
        target = Path(target)
        name = target.name.lower()
        if name.endswith((".parquet", ".pq")):
            with atomic_path(target) as path:
                if self.fields:
                    import pyarrow.parquet as pq

                    pq.write_table(self.arrow(), path)
                else:
                    self.frame.to_parquet(path, index=False)
            return
        if not name.endswith(SEPARATED) and self.kind != "csv":
            raise DataError(f"{target} has no suffix for tables; give one of {', '.join(SUFFIXES)}")
        separator = "\t" if ".tsv" in name or ".tab" in name else self.separator
        if ".csv" in name and separator == "\t":
            separator = ","
        data = self.text(separator, self.header).encode("utf-8")
        with atomic_path(target) as path:
            path.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)

    def arrow(self) -> Any:
        """The rows as an Arrow table in the columns' fields; empty cells of a csv are missing."""
        return to_arrow(self.frame if self.kind != "csv" else self.frame.replace("", None), self.fields)

    def text(self, separator: str, header: bool) -> str:
        """The rows as csv, below their names if ``header``."""
        columns = [[("" if c is None else c) for c in self.cells(name)] for name in self.columns]
        return _written(zip(*columns), columns, separator, self.columns if header else None)

    @classmethod
    def read(
        cls,
        source: Any,
        labels: Any = None,
        classes: Sequence[str] = (),
        separator: str | None = None,
        header: bool | None = None,
        columns: Sequence[str] | None = None,
        skip: int = 0,
        encoding: str = "utf-8",
    ) -> Table:
        """Read a table.

        Args:
            source: a csv, tsv or parquet file, or a DataFrame of pandas or polars, an Arrow table, a dict of
                columns, or an array ``[rows, columns]``.
            labels: one class label per row, beside the columns.
            classes: class names in the order of the labels' numbers.
            separator: between cells; by default found among comma, semicolon, tab and bar.
            header: whether the first row holds the names; by default it does unless it looks like the rows
                below.
            columns: names to use instead.
            skip: lines to skip at the top.
            encoding: of a csv.

        Raises:
            DataError: missing, empty, ragged or undecodable files, and columns of one name.
        """
        if not isinstance(source, (str, Path)):
            table = _frame(source, columns)
        else:
            path = existing(source)
            if path.is_dir():
                raise DataError(f"{path} is a folder; a table is one csv or parquet file")
            if path.name.lower().endswith((".parquet", ".pq")):
                frame, fields = _parquet(path)
                table = cls(frame, fields=fields)
            else:
                table = _read_csv(path, separator, header, columns, skip, encoding)
        if len(table) == 0:
            raise DataError("the table has no rows; it needs at least one")
        table.relabel(labels, classes)
        return table


def _written(
    rows: Iterable[Sequence[str]], columns: Iterable[Sequence[str]], separator: str, header: Sequence[str] | None
) -> str:
    """Rows as csv, below their names if there are any; ``columns`` are the same cells."""
    # Old csv writers leave a lone carriage return unquoted, which no reader gives back.
    risky = any("\r" in c for column in columns for c in column)
    out = io.StringIO(newline="")
    writer = csv.writer(
        out, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL if risky else csv.QUOTE_MINIMAL
    )
    if header is not None:
        writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def _parsed(cells: list[str]) -> pandas.Series:
    """The column that pandas reads of a csv with these cells."""
    import pandas as pd

    text = "\n".join(["column", *cells, ""])
    if "" in cells or any(mark in text for mark in ',"\r') or text.count("\n") > len(cells) + 1:
        text = _written(([c] for c in cells), [cells], ",", ["column"])  # some need quotes
    return pd.read_csv(io.StringIO(text), skip_blank_lines=False)["column"]


def table_like(cells: dict[str, np.ndarray], schema: dict[str, dict[str, Any]], form: dict[str, Any]) -> Table:
    """The table with these cells, in the outer form of a source if its kind can hold columns of these types."""
    plain = all(spec == CSV for spec in schema.values())
    kind = "csv" if plain else ("frame" if form["kind"] == "csv" else form["kind"])
    return Table.from_cells(cells, schema, kind).with_form(form | {"kind": kind})


def _frame(source: Any, columns: Sequence[str] | None) -> Table:
    """The table of an object in memory."""
    import pandas as pd

    kind, fields = "frame", None
    arrow = from_arrow_kind(source)
    if arrow is not None:
        kind = "polars" if type(source).__module__.partition(".")[0] == "polars" else "arrow"
        source, fields = arrow
    elif isinstance(source, dict):
        source = pd.DataFrame(source)
    elif not isinstance(source, pd.DataFrame):
        array = source.detach().cpu().numpy() if hasattr(source, "detach") else np.asarray(source)
        if array.ndim != 2 or array.dtype.kind == "O":
            raise DataError(
                f"a table cannot be read from {type(source).__name__} of shape {array.shape}; give a "
                "DataFrame, a csv "
                "or parquet file, or an array of rows x columns"
            )
        source = pd.DataFrame(array, columns=[f"column_{i + 1}" for i in range(array.shape[1])])
    if columns is not None:
        if len(columns) != source.shape[1]:
            raise DataError(f"columns= names {len(columns)} of {source.shape[1]} columns; name every one")
        source, fields = source.set_axis(list(columns), axis=1), None
    return Table(source, kind=kind, fields=fields)


def _parquet(path: Path) -> tuple[pandas.DataFrame, dict[str, str]]:
    """What pandas reads of the file, but in Arrow's types where pandas' own lose something, and its fields."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = read_bytes(path)
    try:
        frame = pd.read_parquet(io.BytesIO(data))
        if any(name is not None for name in frame.index.names):  # a named index is a column of the file
            frame = frame.reset_index()
        schema, is_ = pq.read_schema(io.BytesIO(data)), pa.types
        lossy = []
        for field in (schema.field(name) for name in map(str, frame.columns) if name in schema.names):
            kind = field.type
            whole = is_.is_integer(kind) and frame[field.name].dtype.kind == "f"  # it has gaps
            if whole or is_.is_date(kind) or is_.is_time(kind) or is_.is_decimal(kind) or is_.is_null(kind):
                lossy.append(field.name)
        if lossy:
            exact = pq.read_table(io.BytesIO(data), columns=lossy)
            frame[lossy] = exact.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)[lossy]
    except Exception as error:  # Arrow raises many kinds
        raise DataError(f"{path} is not a readable parquet file; write it again") from error
    return frame, {field.name: write_field(field) for field in schema}


def _read_csv(
    path: Path,
    separator: str | None,
    header: bool | None,
    columns: Sequence[str] | None,
    skip: int,
    encoding: str,
) -> Table:
    import pandas as pd

    data = read_bytes(path)
    if path.suffix.lower() == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is a damaged gzip file; compress it again") from error
    try:
        text = data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not {encoding} text: byte {data[error.start]:#04x} at offset {error.start}; "
            'name its encoding with encoding=, for instance "latin-1"'
        ) from error
    except LookupError as error:
        raise DataError(f"encoding {encoding!r} is not known; try utf-8 or latin-1") from error
    for _ in range(skip):
        text = text.partition("\n")[2]
    if separator is None:
        separator = separator_of(text)
    rows, lines = _rows(text, separator, path, skip)
    if not rows:
        raise DataError(f"{path} is an empty table; it needs at least one row")
    width = len(rows[0])
    for row, line in zip(rows, lines):
        if len(row) != width:
            raise DataError(
                f"line {line} of {path} has {len(row)} cells where the first row has {width}; mend it, or "
                "give "
                "separator= if the cells are not split as they should be"
            )
    if header is None:
        header = has_header(rows)
    names = rows.pop(0) if header else [f"column_{i + 1}" for i in range(width)]
    if columns is not None:
        if len(columns) != width:
            raise DataError(f"columns= names {len(columns)} of the {width} columns of {path}; name every one")
        names = list(columns)
    _distinct(names, str(path))
    if not rows:
        raise DataError(f"{path} has a header and no rows; it needs at least one")
    content = np.empty((len(rows), width), dtype=object)
    content[:] = rows
    frame = pd.DataFrame({name: pd.Series(content[:, i], dtype=object) for i, name in enumerate(names)})
    return Table(frame, kind="csv", separator=separator, header=header)


def _rows(text: str, separator: str, path: Path, skip: int) -> tuple[list[list[str]], list[int]]:
    """The rows that are not blank, and the line of the file on which each ends."""
    rows, lines = [], []
    try:
        for row, line in csv_rows(io.StringIO(text, newline=""), separator):
            rows.append(row)
            lines.append(line + skip)
    except csv.Error as error:
        line = 1 + (lines[-1] if lines else skip)
        raise DataError(f"line {line} of {path} is no csv ({error}); mend its quotes") from error
    return rows, lines


def csv_rows(lines: Iterable[str], separator: str) -> Iterator[tuple[list[str], int]]:
    """The rows that are not blank, and the line, from 1, on which each ends.

    Raises:
        csv.Error: as Python's reader, and a quote that is still open at the end, which would swallow all the rest.
    """
    ended = False

    def and_a_blank() -> Iterator[str]:
        nonlocal ended
        yield from lines
        ended = True
        yield "\n"

    reader = csv.reader(and_a_blank(), delimiter=separator)
    for row in reader:
        if row and ended:
            raise csv.Error("a quote opens there and never closes")
        if row:
            yield row, reader.line_num


def separator_of(text: str) -> str:
    """The separator that splits most of the first rows into as many cells (at least two) as the first row."""
    best, most = ",", (0, 0)
    for candidate in _SEPARATORS:
        counts = []
        try:
            for row in csv.reader(io.StringIO(text[:200_000], newline=""), delimiter=candidate):
                if row:
                    counts.append(len(row))
                if len(counts) == 100:
                    break
        except csv.Error:
            continue
        if counts and counts[0] > 1:
            score = (sum(c == counts[0] for c in counts), counts[0])
            best, most = (candidate, score) if score > most else (best, most)
    return best


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def has_header(rows: list[list[str]]) -> bool:
    """Whether the first row differs from those below: false if every numeric column starts with a number.

    Without numeric columns a first row that repeats a word is taken for data; with some, for names, one of which is
    there twice by mistake.
    """
    if len(rows) < 2:
        return len(set(rows[0])) == len(rows[0])
    below = rows[1:200]
    numeric = [
        i
        for i in range(len(rows[0]))
        if sum(_number(r[i]) for r in below) > 0.8 * max(1, sum(r[i].strip() != "" for r in below))
    ]
    if len(set(rows[0])) < len(rows[0]):
        return bool(numeric) and not any(_number(cell) or not cell.strip() for cell in rows[0])
    return not numeric or not all(_number(rows[0][i]) for i in numeric)


def _distinct(names: Sequence[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{where} has two columns named {name!r}; rename one of them")
        seen.add(name)
