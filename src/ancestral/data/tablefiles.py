"""Tables on disk that are read chunk by chunk: large files, folders and patterns of files."""

from __future__ import annotations

import csv
import glob
import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from ancestral.data.arrow import write_field
from ancestral.data.base import Dataset, existing, files_under, positions
from ancestral.data.table import SUFFIXES, Table, csv_rows, has_header, separator_of
from ancestral.errors import DataError

CHUNK = 131_072
"""Rows that are read together."""

LARGE = 200_000_000
"""Bytes of a file from which it is read chunk by chunk rather than at once."""


def read_table(
    source: Any,
    labels: Any = None,
    classes: Sequence[str] = (),
    separator: str | None = None,
    header: bool | None = None,
    columns: Sequence[str] | None = None,
    skip: int = 0,
    encoding: str = "utf-8",
    chunk: int | None = None,
) -> Dataset:
    """Read a table: into memory, or as files to be read chunk by chunk.

    Args:
        source: as for :meth:`Table.read`; also a folder, a pattern (``data/*.parquet``) or a list of files of one
            kind and the same columns, whose rows follow each other.
        labels, classes, separator, header, columns, skip, encoding: as for :meth:`Table.read`.
        chunk: rows to read together; by default files of less than 200 MB are read at once.

    Raises:
        DataError: as for :meth:`Table.read`, and files whose columns differ.
    """
    paths = table_paths(source)
    if paths is None:
        if chunk is not None:
            raise DataError("chunk= is for files; this table is in memory already, leave it out")
        return Table.read(source, labels, classes, separator, header, columns, skip, encoding)
    small = len(paths) == 1 and chunk is None and _size(paths[0]) < LARGE
    if small:
        return Table.read(paths[0], labels, classes, separator, header, columns, skip, encoding)
    if labels is not None:
        raise DataError("files that are read chunk by chunk take no labels=; make the labels a column of the table")
    return TableFiles(paths, CHUNK if chunk is None else chunk, Format(separator, header, columns, skip, encoding))


def table_paths(source: Any) -> list[Path] | None:
    """The files of a path, folder, pattern or list of paths; None of anything in memory.

    Raises:
        DataError: no table among them.
    """
    if isinstance(source, (list, tuple)) and source and all(isinstance(s, (str, Path)) for s in source):
        return [existing(s) for s in source]
    if not isinstance(source, (str, Path)):
        return None
    found = matches(source)
    if found:
        return found
    path = existing(source)
    if not path.is_dir():
        return [path]
    inside = [p for p in files_under(path) if p.name.lower().endswith(SUFFIXES)]
    if not inside:
        raise DataError(f"the folder {path} holds no table; put {', '.join(SUFFIXES)} files in it")
    return inside


def matches(source: str | Path) -> list[Path]:
    """The files that a pattern such as ``data/*.csv`` stands for, sorted; empty if it is none."""
    text = str(source)
    if len(text) > 4096 or not glob.has_magic(text) or Path(text).exists():
        return []
    return [path for path in map(Path, sorted(glob.glob(text, recursive=True))) if path.is_file()]


def _size(path: Path) -> int:
    return path.stat().st_size * (5 if path.name.lower().endswith((".gz", ".parquet", ".pq")) else 1)


@dataclass(frozen=True)
class Format:
    """How csv files are written; see :meth:`Table.read`."""

    separator: str | None = None
    header: bool | None = None
    columns: Sequence[str] | None = None
    skip: int = 0
    encoding: str = "utf-8"


class TableFiles(Dataset):
    """Rows of one table in one or several files, never all in memory.

    Args:
        paths: csv, tsv or parquet files with the same columns.
        chunk: rows to read together.
        form: how the csv files are written.
    """

    modality = "table"

    def __init__(self, paths: Sequence[Path], chunk: int = CHUNK, form: Format | None = None) -> None:
        if chunk < 1:
            raise DataError(f"chunk={chunk} rows are none; give at least 1")
        self.paths, self.chunk, self._format = list(paths), chunk, form or Format()
        self.labels, self.classes, self.names, self.kind = None, (), None, "files"

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _count(self) -> int:
        if all(_is_parquet(path) for path in self.paths):
            return sum(_parquet(path).metadata.num_rows for path in self.paths)
        return sum(len(chunk) for chunk in self.chunks())

    @cached_property
    def columns(self) -> list[str]:
        """The column names, in order."""
        return next(self.chunks()).columns

    def chunks(self) -> Iterator[Table]:
        """The rows in their order, at most :attr:`chunk` at once.

        Raises:
            DataError: damaged files, no rows, or files whose columns differ.
        """
        first: list[str] | None = None
        for path in self.paths:
            parts = (
                _parquet_chunks(path, self.chunk) if _is_parquet(path) else csv_chunks(path, self.chunk, self._format)
            )
            for part in parts:
                if first is None:
                    first = part.columns
                elif set(part.columns) != set(first):
                    odd = sorted(set(part.columns) ^ set(first))[0]
                    lacks = "lacks" if odd in first else "has"
                    raise DataError(
                        f"{path} {lacks} the column {odd!r} unlike {self.paths[0]}; give files of one table"
                    )
                yield part
        if first is None:
            raise DataError(f"there are no rows in {self.paths[0]}{' and the others' * (len(self.paths) > 1)}")

    def loaded(self) -> Table:
        """All rows in memory."""
        import pandas as pd

        parts = list(self.chunks())
        return parts[0].with_frame(pd.concat([part.frame for part in parts], ignore_index=True))

    def sketch(self) -> Table:
        """A bounded sample of the rows that holds every common value and the extremes; see :func:`survey`."""
        from ancestral.data.survey import survey

        self._count, table = survey(self.chunks())
        return table

    def take(self, indices: Any) -> Self:
        raise DataError(f"{self._where()} is read chunk by chunk, without choosing rows; use loaded().take(...)")

    def at(self, indices: Any) -> Table:
        """The rows at ``indices``, in ascending order."""
        import pandas as pd

        wanted, first, found = np.sort(positions(indices, len(self))), 0, []
        for part in self.chunks():
            here = wanted[(wanted >= first) & (wanted < first + len(part))] - first
            if len(here):
                found.append(part.take(here))
            first += len(part)
        return found[0].with_frame(pd.concat([part.frame for part in found], ignore_index=True))

    def native(self) -> Any:
        """All rows as a DataFrame."""
        return self.loaded().native()

    def save(self, target: str | Path, overwrite: bool = False) -> None:
        """Write all rows to one csv, tsv or parquet file, chunk by chunk."""
        from ancestral.data.writing import write_tables

        write_tables(self.chunks(), target)

    def _where(self) -> str:
        return str(self.paths[0]) if len(self.paths) == 1 else f"{self.paths[0]} and {len(self.paths) - 1} more"


def _is_parquet(path: Path) -> bool:
    return path.name.lower().endswith((".parquet", ".pq"))


def _parquet(path: Path) -> Any:
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except Exception as error:  # Arrow raises many kinds
        raise DataError(f"{path} is not a readable parquet file; write it again") from error


def _parquet_chunks(path: Path, rows: int) -> Iterator[Table]:
    import pandas as pd
    import pyarrow as pa

    with _parquet(path) as file:
        names = [name for name in file.schema_arrow.names if not name.startswith("__index_level_")]
        try:
            for batch in file.iter_batches(rows, columns=names):
                table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
                fields = {field.name: write_field(field) for field in table.schema}
                yield Table(table.to_pandas(types_mapper=pd.ArrowDtype), kind="parquet", fields=fields)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read to its end; write it again") from error


def csv_chunks(path: Path, rows: int, form: Format) -> Iterator[Table]:
    """The rows of a csv, exact strings, at most ``rows`` at once.

    Raises:
        DataError: ragged, undecodable or damaged files.
    """
    encoding = "utf-8-sig" if form.encoding == "utf-8" else form.encoding
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    line = form.skip
    try:
        with opened(path, "rt", encoding=encoding, newline="") as handle:
            separator = form.separator
            if separator is None:
                _skip(handle, form.skip)
                separator = separator_of(handle.read(200_000))
                handle.seek(0)
            _skip(handle, form.skip)
            names: list[str] | None = None
            block: list[list[str]] = []
            header = form.header
            for row, number in csv_rows(handle, separator):
                line = number + form.skip
                if names is None and len(block) < 200:
                    block.append(row)
                    continue
                if names is None:
                    names, header = _names(block, form, path)
                    block = block[header:]
                if len(row) != len(names):
                    raise _ragged(path, line, len(row), len(names))
                block.append(row)
                if len(block) >= rows:
                    yield _csv_table(block, names, separator, header)
                    block = []
            if names is None and block:
                names, header = _names(block, form, path)
                block = block[header:]
            if block and names is not None:
                yield _csv_table(block, names, separator, header)
    except csv.Error as error:
        raise DataError(f"line {line + 1} of {path} is no csv ({error}); mend its quotes") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not {form.encoding} text: byte {error.object[error.start]:#04x} after line {line}; "
            'name its encoding with encoding=, for instance "latin-1"'
        ) from error
    except LookupError as error:
        raise DataError(f"encoding {form.encoding!r} is not known; try utf-8 or latin-1") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read to its end ({error}); write it again") from error


def _skip(handle: Any, lines: int) -> None:
    for _ in range(lines):
        handle.readline()


def _names(block: list[list[str]], form: Format, path: Path) -> tuple[list[str], bool]:
    """Column names and whether the first row holds them."""
    width = len(block[0])
    for number, row in enumerate(block):
        if len(row) != width:
            raise _ragged(path, number + 1 + form.skip, len(row), width)
    header = has_header(block) if form.header is None else form.header
    names = list(block[0]) if header else [f"column_{i + 1}" for i in range(width)]
    if form.columns is not None:
        if len(form.columns) != width:
            raise DataError(f"columns= names {len(form.columns)} of the {width} columns of {path}; name every one")
        names = list(form.columns)
    repeated = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if repeated is not None:
        raise DataError(f"{path} has two columns named {repeated!r}; rename one of them")
    return names, header


def _ragged(path: Path, line: int, cells: int, width: int) -> DataError:
    return DataError(
        f"line {line} of {path} has {cells} cells where the first row has {width}; mend it, or give separator= if the "
        "cells are not split as they should be"
    )


def _csv_table(block: list[list[str]], names: list[str], separator: str, header: bool | None) -> Table:
    import pandas as pd

    content = np.empty((len(block), len(names)), dtype=object)
    content[:] = block
    frame = pd.DataFrame({name: pd.Series(content[:, i], dtype=object) for i, name in enumerate(names)})
    return Table(frame, kind="csv", separator=separator, header=bool(header))
