"""Items of every modality as JSON and back, from nothing but the bytes of the request: no path is ever opened."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from typing import Any

import numpy as np

from ancestral.data import Audio, Dataset, Images, Sequences, Table, Text
from ancestral.data.table import CSV
from ancestral.errors import DataError
from ancestral.inputs import named_sites
from ancestral.model import Model
from ancestral.serving.limits import Limits, Refusal

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")


def unpacked(text: Any, where: str) -> bytes:
    """The bytes that base64 ``text`` stands for.

    Raises:
        Refusal: it is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise Refusal(f"{where} is not base64", param="items") from error


def packed(data: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(data).decode("ascii")


def dataset_of(model: Model, items: list[Any], limits: Limits) -> Dataset:
    """The items of a request as data of the model's modality.

    Args:
        model: text takes strings, or ``{"base64": ...}`` for bytes; tables objects of column and value, null where a
            cell is missing; images PNG, JPEG, WebP or BMP files and sound WAV files, in base64; sequences lists.
        items: as JSON has them.
        limits: how many, and how large images may be.

    Raises:
        Refusal: none, too many, or of another kind.
        DataError: items that the reader refuses.
    """
    if not items:
        raise Refusal("there are no items; give at least one", param="items")
    if len(items) > limits.items:
        raise Refusal(f"{len(items)} items are more than {limits.items}; send them in parts", 413, param="items")
    kind = model.tokenizer.modality
    if kind == "text":
        documents = [_document(item, i) for i, item in enumerate(items)]
        return Text(documents, bool(getattr(model.tokenizer, "binary", False)))
    if kind == "table":
        return _table(model, items)
    if kind == "images":
        return Images.read([_picture(item, i, limits) for i, item in enumerate(items)])
    if kind == "audio":
        return Audio.read_files([unpacked(item, f"clip {i}") for i, item in enumerate(items)])
    if kind == "sequences":
        for i, item in enumerate(items):
            if not isinstance(item, list):
                raise Refusal(f"item {i} is no list of symbols", param="items")
        return Sequences(items)
    raise Refusal(f"models of {kind} cannot be sent items as JSON")


def _document(item: Any, number: int) -> str | bytes:
    if isinstance(item, str):
        return item
    if isinstance(item, dict) and set(item) == {"base64"}:
        return unpacked(item["base64"], f"item {number}")
    raise Refusal(f'item {number} is neither a string nor {{"base64": "..."}}', param="items")


def _picture(item: Any, number: int, limits: Limits) -> Any:
    from PIL import Image

    data = unpacked(item, f"image {number}")
    large = f"image {number} has more than {limits.pixels} pixels"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise Refusal(large, 413, param="items") from error
    except Exception as error:  # Pillow raises a different kind for every format
        raise Refusal(f"image {number} is not a {', '.join(_FORMATS)} file that can be read", param="items") from error
    if picture.width * picture.height > limits.pixels:
        raise Refusal(large, 413, param="items")
    return picture


def _table(model: Model, rows: list[Any]) -> Table:
    tokenizer: Any = model.tokenizer
    names = list(tokenizer.columns)
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise Refusal(f"item {i} is no object of columns and values", param="items")
        if odd := sorted(set(row) ^ set(names)):
            what = "no" if odd[0] in names else "an unknown"
            raise Refusal(f"item {i} has {what} column {odd[0]!r}; there are {', '.join(names)}", param="items")
    csv = tokenizer.form["kind"] == "csv"
    schema = dict.fromkeys(names, CSV) if csv else tokenizer.schema
    cells = {}
    for name in names:
        real = not csv and str(schema[name]["dtype"]).lower().startswith("float")
        column = [_cell(row[name], real, f"column {name!r} of item {i}") for i, row in enumerate(rows)]
        cells[name] = np.array([c if c is not None or not csv else "" for c in column], dtype=object)
    try:
        return Table.from_cells(cells, schema, "csv" if csv else "frame")
    except (ValueError, TypeError) as error:
        raise DataError(f"the items do not fit the table's columns: {error}") from error


def _cell(value: Any, real: bool, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, (int, float)):
        return repr(float(value)) if real else repr(value)
    raise Refusal(f"{where} is no plain value", param="items")


def plain(dataset: Dataset) -> list[Any]:
    """Items as JSON content, in the form that :func:`dataset_of` takes."""
    if isinstance(dataset, Text):
        return [_text(payload, dataset.binary) for payload in dataset.payloads]
    if isinstance(dataset, Table):
        return _rows(dataset)
    if isinstance(dataset, Images):
        return [packed(dataset.png(i)) for i in range(len(dataset))]
    if isinstance(dataset, Audio):
        return [packed(dataset.wav(i)) for i in range(len(dataset))]
    if isinstance(dataset, Sequences):
        return [list(item) for item in dataset.items]
    raise DataError(f"{dataset.modality} cannot be sent as JSON")


def _text(payload: bytes, binary: bool) -> Any:
    if not binary:
        try:
            return payload.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return {"base64": packed(payload)}


def _rows(table: Table) -> list[dict[str, Any]]:
    """Numbers and truth values as such, other cells as their strings."""
    import pandas as pd

    frame = table.native()
    if not isinstance(frame, pd.DataFrame):
        frame = table.frame
    columns: dict[str, list[Any]] = {}
    for name in table.columns:
        series = frame[name]
        if pd.api.types.is_numeric_dtype(series) or pd.api.types.is_bool_dtype(series):
            columns[name] = [None if pd.isna(v) else v for v in series.tolist()]
        else:
            columns[name] = [None if c is None or c == "" else str(c) for c in table.cells(name)]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def known_sites(model: Model, known: Any, limits: Limits) -> Any:
    """What of the items is known: a word (top ...), names of columns, or an image that is white where known.

    Raises:
        Refusal: none of these.
    """
    if known is None:
        return None
    if model.tokenizer.modality == "images" and len(known) > 20:
        return Images.read([_picture(known, 0, limits)], channels=1).pixels[0, ..., 0] > 127
    found = named_sites(model.tokenizer, known)
    if found is None:
        raise Refusal(
            "known is neither top, bottom, left or right, nor names of columns, nor an image in base64", param="known"
        )
    return found
