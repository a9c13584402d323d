"""Tables to one file, chunk by chunk."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ancestral.data.table import SEPARATED, SUFFIXES, Table
from ancestral.errors import DataError
from ancestral.files import atomic_path


def write_tables(tables: Iterable[Table], target: str | Path) -> int:
    """Write tables of the same columns below each other; nothing is left half-written.

    Args:
        tables: at least one.
        target: a csv, tsv (either may end in .gz) or parquet file.

    Returns:
        Number of rows.

    Raises:
        DataError: another suffix, or a place that cannot be written.
    """
    target = check_target(target)
    with atomic_path(target) as path:
        if target.name.lower().endswith((".parquet", ".pq")):
            return _parquet(tables, path)
        return _separated(tables, path, target.name.lower())


def check_target(target: str | Path) -> Path:
    """The path, if its suffix is one of a table's.

    Raises:
        DataError: it is not.
    """
    target = Path(target)
    if not target.name.lower().endswith(SUFFIXES):
        raise DataError(f"{target} has no suffix for tables; give one of {', '.join(SUFFIXES)}")
    return target


def _separated(tables: Iterable[Table], path: Path, name: str) -> int:
    assert name.endswith(SEPARATED)
    separator = "\t" if ".tsv" in name or ".tab" in name else ","
    count = 0
    with path.open("wb") as plain:
        packed = gzip.GzipFile(filename="", fileobj=plain, mode="wb", mtime=0) if name.endswith(".gz") else None
        for table in tables:
            (packed or plain).write(table.text(separator, header=count == 0).encode("utf-8"))
            count += len(table)
        if packed is not None:
            packed.close()
    return count


def _parquet(tables: Iterable[Table], path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: Any = None
    count = 0
    try:
        for table in tables:
            rows = table.arrow()
            if writer is None:
                # A column without a value so far says nothing about its type.
                fields = [f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in rows.schema]
                writer = pq.ParquetWriter(path, pa.schema([f.with_nullable(True) for f in fields]))
            writer.write_table(rows.select(writer.schema.names).cast(writer.schema))
            count += len(table)
    finally:
        if writer is not None:
            writer.close()
    return count
