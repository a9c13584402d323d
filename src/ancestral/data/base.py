"""What every dataset answers, whatever its modality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from ancestral.errors import DataError


class Dataset(ABC):
    """n items of one modality in memory, with class labels where the source has them.

    Attributes:
        modality: the word that ``read(modality=...)`` takes.
        labels: int64 ``[n]``, an index into ``classes``, or None.
        classes: the class names, empty without labels.
        names: one file name per item (with its sub-folder) where the source had them, else None.
        captions: one text per item that a model may be told, "" where there is none, or None without any.
        kind: the kind of source (``"folder"``, ``"array"`` ...), which decides what :meth:`native` returns.
    """

    modality: ClassVar[str]
    labels: np.ndarray | None
    classes: tuple[str, ...]
    captions: tuple[str, ...] | None = None

    def __init__(
        self,
        labels: Any = None,
        classes: Sequence[str] = (),
        names: Sequence[str] | None = None,
        kind: str = "",
    ) -> None:
        self.names = None if names is None else tuple(names)
        self.kind = kind
        self.relabel(labels, classes)

    def relabel(self, labels: Any, classes: Sequence[str] = ()) -> None:
        """Set the labels (integers from 0, or names; None removes them) and class names.

        Raises:
            DataError: not one label per item, or a label that is no class.
        """
        self.labels, self.classes = named_labels(labels, classes)
        if self.labels is not None and len(self.labels) != len(self):
            raise DataError(
                f"there are {len(self.labels)} labels for {len(self)} items; give exactly one label per item"
            )

    @abstractmethod
    def __len__(self) -> int:
        """Number of items n."""

    @abstractmethod
    def take(self, indices: Any) -> Self:
        """The items at ``indices`` (integers, a slice or a boolean mask), in that order, labels included."""

    @abstractmethod
    def native(self) -> Any:
        """The items as whoever gave the source expects them: an array, a list of str, a DataFrame ..."""

    def completed(self, source: Any) -> Any:
        """:meth:`native` of items that complete those of ``source``, with what it says of them beside their content."""
        return self.native()

    @abstractmethod
    def save(self, target: str | Path, overwrite: bool = False) -> None:
        """Write the items to ``target``, whose suffix chooses the format; nothing is left half-written.

        Args:
            target: a file, which is replaced, or a folder.
            overwrite: replace a folder that is not empty, with all that is in it.

        Raises:
            DataError: the place cannot be written or is a folder with files in it, or the format cannot hold these
                items.
        """

    def loaded(self) -> Dataset:
        """The items in memory, where they all are but for data that are read chunk by chunk."""
        return self

    def sketch(self) -> Dataset:
        """Items to fit a tokenizer on: all, or a bounded sample of data that are read chunk by chunk."""
        return self

    @property
    def form(self) -> dict[str, Any]:
        """JSON-able outer form of the source (kind, names), which :meth:`native` and :meth:`save` use.

        A compressed stream keeps it, so that decompressing gives back what was given.
        """
        return {"kind": self.kind, "names": None if self.names is None else list(self.names)}

    def with_form(self, form: dict[str, Any]) -> Self:
        """The same items, presented in the outer form that :attr:`form` of another dataset described."""
        other = self.take(slice(None))
        names = form.get("names")
        other.kind = form.get("kind", self.kind)
        other.names = tuple(names) if names is not None and len(names) == len(self) else None
        return other

    def _shared(self, index: np.ndarray) -> dict[str, Any]:
        """Constructor arguments of the taken items that all modalities have."""
        return {
            "labels": None if self.labels is None else self.labels[index],
            "classes": self.classes,
            "names": None if self.names is None else [self.names[i] for i in index],
            "kind": self.kind,
        }

    def __repr__(self) -> str:
        extra = f", {len(self.classes)} classes" if self.classes else ""
        return f"{type(self).__name__}({len(self)} items{extra})"


def positions(indices: Any, n: int) -> np.ndarray:
    """Normalise a slice, boolean mask or list of integers to int64 positions in ``[0, n)``."""
    return np.arange(n, dtype=np.int64)[indices if isinstance(indices, slice) else np.asarray(indices)].reshape(-1)


def named_labels(labels: Any, classes: Sequence[str] = ()) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Turn labels of any kind into int64 indices and class names.

    Args:
        labels: None, integers from 0, or names (any strings).
        classes: the names in index order; by default the sorted distinct labels, or the numbers as words.

    Raises:
        DataError: a label is missing from ``classes`` or negative.
    """
    names = tuple(str(c) for c in classes)
    if labels is None:
        return None, names
    if hasattr(labels, "detach"):  # a torch tensor, possibly on another device
        labels = labels.detach().cpu().numpy()
    array = np.asarray(labels).reshape(-1)
    if array.dtype.kind in "iub" or (array.dtype.kind == "f" and bool(np.all(array == np.round(array)))):
        index = array.astype(np.int64)
        if len(index) and index.min() < 0:
            raise DataError(f"label {index.min()} is negative; number the classes from 0")
        top = int(index.max()) + 1 if len(index) else 0
        if not names:
            names = tuple(str(i) for i in range(top))
        elif top > len(names):
            raise DataError(f"label {top - 1} has no name among the {len(names)} classes; name every class")
        return index, names
    if array.dtype.kind == "f":
        raise DataError("labels must be whole numbers from 0 or names, not fractions or NaN; drop or mend those items")
    words = [str(a) for a in array]
    if not names:
        names = tuple(sorted(set(words)))
    table = {name: i for i, name in enumerate(names)}
    for position, word in enumerate(words):
        if word not in table:
            raise DataError(f"label {word!r} of item {position} is not among the classes; name every class")
    return np.array([table[w] for w in words], dtype=np.int64), names


def existing(source: str | Path) -> Path:
    """The path, or one clear error if nothing is there."""
    path = Path(source)
    try:
        present = path.exists()
    except OSError:  # a name too long to be a file: a text given in place of its path
        present = False
    if not present:
        shown = str(source) if len(str(source)) <= 120 else str(source)[:117] + "..."
        raise DataError(f"there is no file or folder {shown}; check the path (to give a text itself, put it in a list)")
    return path


def read_bytes(path: Path) -> bytes:
    """The file's bytes, or one clear error."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error


def files_under(folder: Path, suffixes: Iterable[str] | None = None) -> list[Path]:
    """All files below ``folder`` that are not hidden, in a fixed order, with one of the suffixes if given."""
    wanted = None if suffixes is None else set(suffixes)
    found = [
        p
        for p in folder.rglob("*")
        if p.is_file()
        and not any(part.startswith(".") for part in p.relative_to(folder).parts)
        and (wanted is None or p.suffix.lower() in wanted)
    ]
    return sorted(found, key=lambda p: p.relative_to(folder).as_posix())


def safe_names(names: Sequence[str] | None, n: int, suffix: str) -> list[str]:
    """Distinct relative file names with ``suffix`` for n items: the given ones where usable, else numbers.

    Names come from compressed streams too, so that ones which would leave the target folder are refused.
    """
    if names is not None and len(names) == n:
        chosen = [str(Path(name).with_suffix(suffix)) if suffix else name for name in names]
        inside = all(not Path(c).is_absolute() and ".." not in Path(c).parts for c in chosen)
        if inside and len(set(chosen)) == n:
            return chosen
    digits = max(5, len(str(max(n - 1, 0))))
    return [f"{i:0{digits}d}{suffix}" for i in range(n)]


def joined(parts: Sequence[Any]) -> Any:
    """What :meth:`Dataset.native` gave for several datasets of one kind, as one: arrays, frames or lists of items."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    if isinstance(parts[0], list):
        return [item for part in parts for item in part]
    import pandas as pd

    return pd.concat(parts, ignore_index=True)
