"""Read any supported data, whatever its form, and write it back to the same kinds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ancestral.data.audio import SUFFIXES as _AUDIO_SUFFIXES
from ancestral.data.audio import Audio
from ancestral.data.base import Dataset, existing, files_under
from ancestral.data.images import SUFFIXES as _IMAGE_SUFFIXES
from ancestral.data.images import Images
from ancestral.data.sequences import Sequences
from ancestral.data.table import SUFFIXES as _TABLE_SUFFIXES
from ancestral.data.table import Table
from ancestral.data.tablefiles import TableFiles, matches, read_table
from ancestral.data.text import Text
from ancestral.errors import DataError

MODALITIES = ("images", "text", "bytes", "table", "sequences", "audio")


def read(source: Any, modality: str | None = None, **options: Any) -> Dataset:
    """Read data of any supported kind.

    Args:
        source: a file, a folder, or an object in memory (array, list, DataFrame ...); a Dataset is returned
            as it is.
        modality: one of ``MODALITIES``; by default found by :func:`sniff`.
        options: those of the modality's reader, for instance ``labels=``, ``size=`` (images), ``lines=``
            (text).

    Raises:
        DataError: one sentence that says what is wrong with the data, where, and what to do.
    """
    if isinstance(source, Dataset):
        if options:
            raise DataError(
                f"there is no option {next(iter(options))}= for data that have been read; check its name, or give it "
                "where they are read"
            )
        return source
    chosen = sniff(source) if modality is None else modality
    if chosen == "bytes":
        chosen, options = "text", options | {"binary": True}
    reader = _readers().get(chosen)
    if reader is None:
        raise DataError(f"modality {chosen!r} is not known; choose one of {', '.join(MODALITIES)}")
    allowed = [p for p in inspect.signature(reader).parameters if p != "source"]
    for option in options:
        if option not in allowed:
            raise DataError(f"{chosen} has no option {option}=; it takes {', '.join(allowed)}")
    return reader(source, **options)


def _readers() -> dict[str, Callable[..., Dataset]]:
    return {
        "images": Images.read,
        "text": Text.read,
        "table": read_table,
        "sequences": Sequences.read,
        "audio": Audio.read,
    }


def sniff(source: Any) -> str:
    """The modality of a source, from its suffix, the files in it, or its type.

    Raises:
        DataError: the source is missing, empty, or could be several things.
    """
    if isinstance(source, (str, Path)):
        if found := matches(source):
            return _by_suffix(found[0])
        path = existing(source)
        if not path.is_dir():
            return _by_suffix(path)
        inside = files_under(path)
        if not inside:
            raise DataError(f"the folder {path} is empty; put files in it")
        counts: dict[str, int] = {}
        for file in inside:
            kind = _by_suffix(file)
            counts[kind] = counts.get(kind, 0) + 1
        return max(counts, key=lambda kind: counts[kind])
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "bytes"
    if hasattr(source, "getbands"):
        return "images"
    if hasattr(source, "columns") or hasattr(source, "column_names") or hasattr(source, "__arrow_c_stream__"):
        return "table"
    if isinstance(source, dict) and any(k in source for k in ("images", "x", "X", "pixels")):
        return "images"
    if isinstance(source, (list, tuple)) and len(source):
        return _by_item(source)
    shape = getattr(source, "shape", None)
    if shape is not None and len(shape) in (3, 4):
        return "images"
    raise DataError(
        f"cannot tell what data a "
        f"{type(source).__name__}{'' if shape is None else f' of shape {tuple(shape)}'} holds; "
        f"give modality= one of {', '.join(MODALITIES)}"
    )


def _by_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in (*_IMAGE_SUFFIXES, ".npz", ".npy"):
        return "images"
    if path.name.lower().endswith(_TABLE_SUFFIXES):
        return "table"
    if suffix in _AUDIO_SUFFIXES:
        return "audio"
    return "sequences" if suffix == ".jsonl" else "text"


def _by_item(source: Any) -> str:
    first = source[0]
    if isinstance(first, Path):
        return _by_suffix(first)
    if isinstance(first, (bytes, bytearray)):
        return "bytes"
    if isinstance(first, str):
        return "text"
    if isinstance(first, (list, tuple)) and np.ndim(_leaf(first)) == 0:
        return "sequences"
    if hasattr(first, "getbands") or np.ndim(first) >= 2:
        return "images"
    raise DataError(
        f"cannot tell what data a list of {type(first).__name__} holds; give modality= one of {', '.join(MODALITIES)}"
    )


def _leaf(item: Any) -> Any:
    return item[0] if len(item) else 0


def write(dataset: Dataset, target: str | Path, overwrite: bool = False) -> None:
    """Write a dataset to ``target``, the suffix of which chooses the format; see each modality's ``save``.

    Raises:
        DataError: the suffix is one of another kind of data, or the target cannot be written.
    """
    check_target(dataset.modality, target)
    dataset.save(target, overwrite)


def check_target(modality: str, target: str | Path) -> None:
    """Refuse a name that promises another kind of data: a table in ``rows.png``, images in ``digits.csv``.

    Texts may have any name, and so may whatever has a suffix that names no kind.

    Raises:
        DataError: such a name.
    """
    target = Path(target)
    promised = _by_suffix(target)
    plain = promised == "text" and (modality in ("text", "sequences", "table") or target.suffix.lower() != ".txt")
    if modality not in (promised, "text") and not plain:
        ways = {
            "images": "a folder, .npz, .npy or .png",
            "table": ".csv, .tsv or .parquet",
            "sequences": ".jsonl or .txt",
            "audio": "a folder or .wav",
        }
        items = {"images": "images", "table": "the rows of a table", "audio": "sounds"}.get(modality, modality)
        raise DataError(f"{items} are not written as {target.name}; give {ways[modality]}")


__all__ = [
    "MODALITIES",
    "Audio",
    "Dataset",
    "Images",
    "Sequences",
    "Table",
    "TableFiles",
    "Text",
    "check_target",
    "read",
    "sniff",
    "write",
]
