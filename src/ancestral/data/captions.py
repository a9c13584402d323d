"""Captions of a folder of images: a table beside them, or a text file beside each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from ancestral.data.base import read_bytes
from ancestral.errors import DataError

TABLES = ("captions.csv", "captions.jsonl", "metadata.csv", "metadata.jsonl")
"""Names of the table, the first that is there."""
FILES = ("file_name", "file", "image", "filename", "name", "path")
TEXTS = ("caption", "text", "description", "prompt")


def folder_captions(folder: Path, names: Sequence[str]) -> tuple[str, ...] | None:
    """One caption per image, in their order; None if the folder has none, "" for an image without.

    Args:
        folder: with ``captions.csv`` or ``captions.jsonl`` (columns ``file_name`` and ``caption`` or the like; also
            ``metadata.csv`` and ``metadata.jsonl``), or a ``.txt`` of the same name beside the images.
        names: of the images, relative to the folder.

    Raises:
        DataError: a table without these columns, or with a file that is not there.
    """
    table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if table is None:
        texts = [(folder / name).with_suffix(".txt") for name in names]
        if not any(path.is_file() for path in texts):
            return None
        return tuple(_text(path).strip() if path.is_file() else "" for path in texts)
    found: dict[str, str] = {}
    known = set(names)
    for number, row in _rows(table):
        file = next((row[key] for key in FILES if key in row), None)
        text = next((row[key] for key in TEXTS if key in row), None)
        if file is None or text is None:
            if table.name.startswith("metadata"):
                return None  # about something else
            raise DataError(
                f"{table}, row {number}: there is no file name with a caption; name the columns file_name and caption"
            )
        if file not in known:
            raise DataError(f"{table}, row {number}: there is no image {file!r} in {folder}; mend or drop the row")
        found[file] = text.strip()
    return tuple(found.get(name, "") for name in names)


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; save it as UTF-8") from error


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    text = _text(table)
    if table.suffix == ".csv":
        for number, row in enumerate(csv.DictReader(io.StringIO(text, newline="")), 2):
            yield number, {key.strip(): value for key, value in row.items() if key and isinstance(value, str)}
        return
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{table}, line {number}: this is not JSON ({error.msg}); give one object a line"
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"{table}, line {number}: this is not an object; give one object a line")
        yield number, {key: value for key, value in row.items() if isinstance(value, str)}
