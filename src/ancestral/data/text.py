"""Text and raw bytes: from files, folders, strings; back to files, exactly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from ancestral.data.base import Dataset, existing, files_under, positions, read_bytes, safe_names
from ancestral.errors import DataError
from ancestral.files import atomic_path


class Text(Dataset):
    """n documents, kept as their exact bytes.

    Attributes:
        payloads: the bytes of every document; UTF-8 unless ``binary``.
        binary: the documents are bytes rather than text (``modality="bytes"``).
    """

    modality = "text"

    def __init__(
        self,
        documents: Sequence[str | bytes],
        binary: bool | None = None,
        labels: Any = None,
        classes: Sequence[str] = (),
        names: Sequence[str] | None = None,
        kind: str = "list",
    ) -> None:
        self.payloads = [_payload(d, i) for i, d in enumerate(documents)]
        self.binary = any(not isinstance(d, str) for d in documents) if binary is None else binary
        super().__init__(labels, classes, names, kind)

    @property
    def documents(self) -> list[str] | list[bytes]:
        """The documents as str, or as bytes if ``binary``.

        A model may draw bytes that are not UTF-8; those are shown as U+FFFD here and kept in ``payloads``.
        """
        return list(self.payloads) if self.binary else [p.decode("utf-8", errors="replace") for p in self.payloads]

    def __len__(self) -> int:
        return len(self.payloads)

    def take(self, indices: Any) -> Self:
        index = positions(indices, len(self))
        return type(self)([self.payloads[i] for i in index], self.binary, **self._shared(index))

    @property
    def form(self) -> dict[str, Any]:
        return super().form | {"binary": self.binary}

    def with_form(self, form: dict[str, Any]) -> Self:
        other = super().with_form(form)
        other.binary = bool(form.get("binary", self.binary))
        return other

    def native(self) -> Any:
        """A list of str (or bytes); the one document itself if a single bytes object was given."""
        documents = self.documents
        return documents[0] if self.kind == "single" and len(documents) == 1 else documents

    def save(self, target: str | Path, overwrite: bool = False) -> None:
        """Write one file (a single document, or one line each), jsonl (strings), or a folder of files.

        Raises:
            DataError: several documents that contain newlines cannot share a plain file; a folder that is not empty
                needs ``overwrite``.
        """
        target = Path(target)
        ending = b"" if self.kind != "lines" else b"\n"
        if target.suffix.lower() == ".jsonl":
            if self.binary:
                raise DataError(f"{target} takes text, not bytes; give a folder")
            with atomic_path(target) as path:
                path.write_text("".join(json.dumps(d) + "\n" for d in self.documents), encoding="utf-8")
        elif len(self) == 1 and (target.suffix or self.kind in ("file", "single")):
            with atomic_path(target) as path:
                path.write_bytes(self.payloads[0] + ending)
        elif target.suffix:
            if any(b"\n" in p for p in self.payloads):
                raise DataError(
                    f"{target} would mix {len(self)} documents that have several lines; give a folder or a .jsonl file"
                )
            with atomic_path(target) as path:
                path.write_bytes(b"".join(p + b"\n" for p in self.payloads))
        else:
            names = safe_names(self.names, len(self), "")
            if self.names is None or len(self.names) != len(self):
                names = [n + (".bin" if self.binary else ".txt") for n in names]
            with atomic_path(target, directory=True, overwrite=overwrite) as folder:
                for name, payload in zip(names, self.payloads):
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).write_bytes(payload)

    @classmethod
    def read(
        cls,
        source: Any,
        labels: Any = None,
        classes: Sequence[str] = (),
        lines: bool = False,
        binary: bool = False,
    ) -> Text:
        """Read text.

        Args:
            source: a file, a folder (every file a document), a list of files, a str list, bytes or a list of
                bytes.
            labels: one label per document.
            classes: class names in the order of the labels' numbers.
            lines: make every line an item (without its newline; saving ends every line with one).
            binary: take the bytes as they are (``modality="bytes"``).

        Raises:
            DataError: missing or empty source, text that is not UTF-8.
        """
        names: list[str] | None = None
        if isinstance(source, (str, Path)):
            path = existing(source)
            if path.is_dir():
                paths = files_under(path)
                names = [p.relative_to(path).as_posix() for p in paths]
                kind = "folder"
            else:
                paths, names, kind = [path], [path.name], "file"
            if not paths:
                raise DataError(f"the folder {path} is empty; put at least one text file in it")
            payloads = [_utf8(read_bytes(p), str(p), binary) for p in paths]
        elif isinstance(source, (bytes, bytearray, memoryview)):
            # Bytes given as an object are a document of bytes, valid UTF-8 or not.
            payloads, kind, binary = [bytes(source)], "single", True
        elif isinstance(source, Sequence):
            payloads, binary = _from_list(source, binary)
            kind = "list"
        else:
            raise DataError(f"text cannot be read from {type(source).__name__}; give a file, a folder or a list of str")
        if lines:
            payloads, names, kind = [line for p in payloads for line in _lines(p)], None, "lines"
        if not payloads or not any(payloads):
            where = str(source) if isinstance(source, (str, Path)) else "the list"
            raise DataError(f"there is no text in {where}; give at least one character")
        return cls(payloads, binary, labels, classes, names, kind)


def _from_list(source: Sequence[Any], binary: bool) -> tuple[list[bytes], bool]:
    if all(isinstance(s, str) for s in source):
        return [_payload(s, i) for i, s in enumerate(source)], binary
    if all(isinstance(s, (bytes, bytearray)) for s in source):
        return [bytes(s) for s in source], True
    if all(isinstance(s, Path) for s in source):
        return [_utf8(read_bytes(existing(p)), str(p), binary) for p in source], binary
    odd = next(i for i, s in enumerate(source) if type(s) is not type(source[0]) or not isinstance(s, (str, bytes)))
    raise DataError(f"item {odd} is a {type(source[odd]).__name__}; give a list of str only, or of bytes only")


def _payload(document: str | bytes, item: int) -> bytes:
    if not isinstance(document, str):
        return bytes(document)
    try:
        return document.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"document {item} has half a character (a lone surrogate) at position {error.start}; remove it"
        ) from error


def _utf8(data: bytes, where: str, binary: bool) -> bytes:
    """The same bytes, once they are known to be UTF-8."""
    if not binary:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where} is not UTF-8 text: byte {data[error.start]:#04x} at offset {error.start}; "
                "convert it, "
                'or read any file as bytes with modality="bytes"'
            ) from error
    return data


def _lines(data: bytes) -> list[bytes]:
    """Lines without their newline; a final newline ends the last line rather than opening another."""
    parts = data.split(b"\n")
    return parts[:-1] if parts[-1] == b"" else parts
