"""Sequences of symbols: from jsonl, lists of lists and lines of words; back to jsonl and lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ancestral.data.base import Dataset, existing, positions, read_bytes
from ancestral.errors import DataError
from ancestral.files import atomic_path

Symbol = str | int


class Sequences(Dataset):
    """n sequences of symbols, each a str or an int.

    Attributes:
        items: the sequences.
    """

    modality = "sequences"

    def __init__(
        self,
        items: Sequence[Sequence[Symbol]],
        labels: Any = None,
        classes: Sequence[str] = (),
        names: Sequence[str] | None = None,
        kind: str = "list",
    ) -> None:
        self.items: list[list[Symbol]] = [_symbols(item, f"item {i}") for i, item in enumerate(items)]
        super().__init__(labels, classes, names, kind)

    def __len__(self) -> int:
        return len(self.items)

    def take(self, indices: Any) -> Self:
        index = positions(indices, len(self))
        return type(self)([self.items[i] for i in index], **self._shared(index))

    def native(self) -> Any:
        """A list of lists; an int64 array ``[n, length]`` if one was given and the lengths are equal."""
        if self.kind == "array" and len({len(item) for item in self.items}) == 1:
            return np.array(self.items, dtype=np.int64)
        return [list(item) for item in self.items]

    def save(self, target: str | Path, overwrite: bool = False) -> None:
        """Write jsonl (a JSON list a line), or words separated by spaces, a line each, for any other suffix.

        Raises:
            DataError: words that hold white space or are empty need jsonl.
        """
        target = Path(target)
        if target.suffix.lower() == ".jsonl":
            text = "".join(json.dumps(item) + "\n" for item in self.items)
        else:
            for i, item in enumerate(self.items):
                if any(isinstance(s, str) and s.split() != [s] for s in item) or not item:
                    raise DataError(f"{target} cannot hold item {i} as words on a line; give a .jsonl file")
            text = "".join(" ".join(map(str, item)) + "\n" for item in self.items)
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(f"{target} cannot hold half a character (a lone surrogate); give a .jsonl file") from error
        with atomic_path(target) as path:
            path.write_bytes(data)

    @classmethod
    def read(cls, source: Any, labels: Any = None, classes: Sequence[str] = ()) -> Sequences:
        """Read sequences.

        Args:
            source: a .jsonl file (a JSON list a line), any other file (words separated by white space, a
                sequence a line), a list of lists, or an integer array ``[n, length]``.
            labels: one label per sequence.
            classes: class names in the order of the labels' numbers.

        Raises:
            DataError: a line that is no JSON list, symbols that are neither str nor int, nothing at all.
        """
        kind = "list"
        if isinstance(source, (str, Path)):
            path = existing(source)
            if path.is_dir():
                raise DataError(f"{path} is a folder; sequences are read from one file, a line each")
            items, kind = _from_file(path), "jsonl" if path.suffix.lower() == ".jsonl" else "words"
        elif hasattr(source, "shape"):
            array = source.detach().cpu().numpy() if hasattr(source, "detach") else np.asarray(source)
            if array.ndim != 2 or array.dtype.kind not in "iu":
                raise DataError(
                    f"sequences cannot be read from {array.dtype} of shape {array.shape}; give integers n x length"
                )
            items, kind = array.tolist(), "array"
        elif isinstance(source, Sequence) and not isinstance(source, (bytes, bytearray)):
            items = list(source)
        else:
            raise DataError(f"sequences cannot be read from {type(source).__name__}; give a list of lists or a file")
        if not any(len(item) for item in items if hasattr(item, "__len__")):
            raise DataError("there are no symbols in the sequences; give at least one")
        return cls(items, labels, classes, kind=kind)


def _from_file(path: Path) -> list[list[Symbol]]:
    data = read_bytes(path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: byte {data[error.start]:#04x} at offset {error.start}; convert it first"
        ) from error
    items: list[list[Symbol]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        if path.suffix.lower() != ".jsonl":
            items.append(list(line.split()))
            continue
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"line {number} of {path} is no JSON ({error.msg}); write one list a line") from error
        items.append(_symbols(item, f"line {number} of {path}"))
    return items


def _symbols(item: Any, where: str) -> list[Symbol]:
    if hasattr(item, "tolist"):
        item = item.tolist()
    if not isinstance(item, (list, tuple)):
        raise DataError(f"{where} is a {type(item).__name__}; a sequence is a list of str or int")
    for place, symbol in enumerate(item):
        if isinstance(symbol, bool) or not isinstance(symbol, (str, int)):
            raise DataError(f"{where} has {symbol!r} at place {place}; symbols are str or int")
    return list(item)
