"""What every tokenizer answers: data to values at sites and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from ancestral.data.base import Dataset
from ancestral.errors import DataError, UnsupportedError
from ancestral.space import Space


class Tokenizer(ABC):
    """Maps a dataset to values tensors ``[n, N, *event]`` and back; :meth:`fit` it first.

    A *streaming* tokenizer has items of any length: :meth:`streams` gives one long row of symbols per item,
    and the space describes a window of it.

    Attributes:
        modality: the dataset modality it takes.
        streaming: whether items are streams of any length.
        classes: names of the training data's class labels, empty without.
        captions: bytes of the training data's longest caption, 0 without.
        ends: symbols that end a stream when they are drawn (streaming tokenizers only).
        many_codes: whether an item has several values tensors that decode to it, so that the probability of one is
            a lower bound on the item's.
        lossless: whether decoding gives the encoded items back; if not, probabilities are those of the values, and
            nothing can be compressed.
        learned: whether :meth:`fit` trains weights, and so takes a training budget.
        fitted: for learned ones, whether it is trained.
        share: for learned ones, the share of a model's training time that goes to the tokenizer.
    """

    modality: ClassVar[str]
    streaming: bool = False
    lossless: ClassVar[bool] = True
    learned: ClassVar[bool] = False
    fitted: bool = False
    share: float = 0.0
    classes: tuple[str, ...] = ()
    captions: int = 0
    ends: tuple[int, ...] = ()
    many_codes: bool = False
    _kinds: ClassVar[dict[str, type[Tokenizer]]] = {}
    _space: Space | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        Tokenizer._kinds[cls.__name__] = cls

    @abstractmethod
    def fit(self, dataset: Dataset) -> Self:
        """Learn from the training data whatever the values need (sizes, vocabulary, bins); return self."""

    @abstractmethod
    def encode(self, dataset: Dataset) -> Tensor:
        """Values of the items, int64 ``[n, N, *event]``.

        Raises:
            DataError: an item that the fitted space cannot hold.
        """

    @abstractmethod
    def decode(self, values: Tensor) -> Dataset:
        """The items that have these values ``[n, N, *event]``: the inverse of :meth:`encode`."""

    def _base_state(self) -> dict[str, Any]:
        """The part of :meth:`state` that all kinds have."""
        space = None if self._space is None else self._space.to_json()
        told = {"classes": list(self.classes)} | ({"captions": self.captions} if self.captions else {})
        return {"kind": type(self).__name__, **told, "space": space}

    def _load_base(self, state: dict[str, Any]) -> None:
        self.classes, self.captions = tuple(state["classes"]), state.get("captions", 0)
        self._space = None if state["space"] is None else Space.from_json(state["space"])

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that was given and learned, as plain JSON content; see :meth:`from_state`."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None:
        """Become the tokenizer that :meth:`state` described."""

    @staticmethod
    def from_state(state: dict[str, Any]) -> Tokenizer:
        """The tokenizer that :meth:`state` described, of whichever kind.

        Raises:
            DataError: a kind that is not installed.
        """
        kind = Tokenizer._kinds.get(state.get("kind", ""))
        if kind is None:
            raise DataError(
                f"tokenizer {state.get('kind')!r} is not known here; import the module that defines it first"
            )
        tokenizer = kind.__new__(kind)
        tokenizer.load_state(state)
        return tokenizer

    def tensors(self) -> dict[str, Tensor]:
        """The learned weights by name, beside :meth:`state`; empty for tokenizers that have none."""
        return {}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take the weights that :meth:`tensors` gave, after :meth:`load_state`."""
        if tensors:
            raise DataError(f"{type(self).__name__} has no weights and was given {len(tensors)}")

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write a folder of its own: ``tokenizer.json``, and ``tokenizer.safetensors`` if there are weights.

        A tokenizer that is there already is replaced; a folder with other files only if ``overwrite``.

        Raises:
            DataError: the place cannot be written, or is a folder of other files.
        """
        from ancestral.storage import save_tokenizer

        save_tokenizer(self, path, overwrite)

    @staticmethod
    def load(path: str | Path) -> Tokenizer:
        """The tokenizer in a folder that :meth:`save`, or a model's ``save``, wrote.

        Raises:
            DataError: no such folder, or damaged.
        """
        from ancestral.storage import load_tokenizer

        return load_tokenizer(path)

    def relabel(self, dataset: Dataset) -> None:
        """Take the class labels of the data that a model of a trained tokenizer learns from.

        Raises:
            DataError: data that the tokenizer cannot take.
        """
        raise DataError(f"{type(self).__name__} is not learned; it is fitted to every data set anew")

    def to(self, device: str | torch.device) -> Self:
        """Move the weights, where there are some."""
        return self

    @property
    def scored(self) -> str:
        """What a model's probabilities are of: "items", or "codes" or "latents" of a lossy tokenizer."""
        return "items" if self.lossless else "codes"

    @property
    def space(self) -> Space:
        """The sites and sizes of the values."""
        if self._space is None:
            raise DataError("the tokenizer has not seen any data; call fit(dataset) first")
        return self._space.replace(text=self.captions) if self.captions else self._space

    def size(self, dataset: Dataset, item: int) -> int:
        """Numbers that an item consists of (bytes, cells ...): the dimensions of bits per dimension."""
        return self.space.scalars

    def given(self, given: Any) -> tuple[Tensor, Tensor]:
        """Values int64 ``[N, *event]`` and known sites bool ``[N]`` of a partly known item.

        Args:
            given: for a table ``{column: value}``, for sequences and text the beginning, for images an array
                with NaN (or a masked array) for the pixels that are not known.

        Raises:
            DataError: a part that no item has, or a kind of data without parts.
        """
        raise DataError(f"{type(self).__name__} cannot fix a part of an item; sample without given=")

    def encode_exact(self, dataset: Dataset) -> tuple[Tensor, bytes]:
        """Values ``[n, N, *event]``, and whatever else it takes to give the same items back."""
        return self.encode(dataset), b""

    def decode_exact(self, values: Tensor, extra: bytes = b"") -> Dataset:
        """The inverse of :meth:`encode_exact`."""
        return self.decode(values)

    def decode_given(self, values: Tensor, dataset: Dataset, known: Tensor | None = None) -> Dataset:
        """The completed items: :meth:`decode`, but what values cannot hold is taken from ``dataset``.

        Args:
            values: ``[n, N, *event]``.
            dataset: the n items with gaps, in the same order.
            known: bool, what was known: sites ``[n, N]``, by default those that the data give; for lossy tokenizers
                parts of the data in their own terms (pixels ``[n, H, W]``), by default none.
        """
        return self.decode(values)

    def known_sites(self, shown: Tensor) -> Tensor:
        """Sites bool ``[n, N]`` whose values depend on known data alone; ``shown`` is a mask in the data's terms.

        Raises:
            UnsupportedError: sites are no parts of the data that a mask could tell apart.
        """
        raise UnsupportedError(
            f"the values of {type(self).__name__} are no parts of a picture that a mask could tell apart; use a recipe "
            "whose values are, such as mar, arpg or any-order"
        )

    def coarse(self, dataset: Dataset) -> tuple[Dataset, Tensor, Tensor]:
        """Items at a lower resolution than the model's, enlarged; their values, and which of them they tell.

        Raises:
            UnsupportedError: the values are no maps of growing resolution.
        """
        raise UnsupportedError(
            f"{type(self).__name__} has no maps of growing resolution, so that none can be refined; use a recipe that "
            "draws scale by scale: var, flowar or imagefolder"
        )

    def known(self, dataset: Dataset) -> Tensor:
        """Which values of :meth:`encode` the data give, bool like them: False where a cell is missing."""
        return torch.ones_like(self.encode(dataset), dtype=torch.bool)

    def streams(self, dataset: Dataset) -> list[Tensor]:
        """One int64 tensor ``[length of the item]`` per item (streaming tokenizers only)."""
        raise DataError(f"{type(self).__name__} has no streams: its items all have {self.space.n} sites; use encode")

    def from_streams(self, streams: Sequence[Tensor]) -> Dataset:
        """The items of these streams, each int64 ``[any length]`` (streaming tokenizers only)."""
        raise DataError(f"{type(self).__name__} has no streams: its items all have {self.space.n} sites; use decode")

    def from_stream(self, stream: Tensor) -> Dataset:
        """The dataset of the one item with this stream, int64 ``[any length]``."""
        return self.from_streams([stream])

    def rest(self, dataset: Dataset) -> list[np.ndarray] | None:
        """Log-probabilities, nats, of what the symbols of each item leave open, a term per symbol; None if nothing."""
        return None

    def streams_exact(self, dataset: Dataset) -> tuple[list[Tensor], bytes]:
        """The streams, and whatever else it takes to give the same items back."""
        return self.streams(dataset), b""

    def from_streams_exact(self, streams: Sequence[Tensor], extra: bytes) -> Dataset:
        """The inverse of :meth:`streams_exact`."""
        return self.from_streams(streams)

    def continued(self, streams: Sequence[Tensor], dataset: Dataset) -> Dataset:
        """The items of streams that go on from those of ``dataset``, whose own part comes back exactly."""
        return self.from_streams(streams)

    def windows(self, dataset: Dataset, stride: int | None = None) -> Tensor:
        """Windows of all streams joined end to end, int64 ``[m, N]``, ``stride`` (default N) apart.

        The last window is moved back to end with the data, so that every symbol is in some window if stride
        <= N.

        Raises:
            DataError: the data are shorter than one window.
        """
        joined = torch.cat(self.streams(dataset))
        n, step = self.space.n, stride or self.space.n
        if len(joined) < n:
            raise DataError(
                f"the text has {len(joined)} symbols, fewer than the window of {n}; give more text or a smaller length="
            )
        starts = list(range(0, len(joined) - n + 1, step))
        if starts[-1] != len(joined) - n:
            starts.append(len(joined) - n)
        return torch.stack([joined[s : s + n] for s in starts])

    def _expect(self, dataset: Dataset) -> None:
        if dataset.modality != self.modality:
            raise DataError(
                f"{type(self).__name__} takes {self.modality} and was given {dataset.modality}; "
                f'choose modality="{self.modality}" or another tokenizer'
            )


class SequenceTokenizer(Tokenizer):
    """Shared by tokenizers of items of different lengths: streams, or rows padded with a stop symbol.

    Subclasses say how one item becomes ids and set ``alphabet`` in :meth:`fit`; the stop symbol, where there
    is one, is the id after the last.
    """

    alphabet: int
    length: int | None = None

    @abstractmethod
    def _part(self, content: Any) -> Dataset:
        """The one-item dataset of what a user gives as an item's beginning."""

    @abstractmethod
    def _ids(self, dataset: Dataset) -> list[np.ndarray]:
        """The ids of every item, int64 ``[length of the item]``."""

    @abstractmethod
    def _items(self, rows: list[np.ndarray]) -> Dataset:
        """The items with these ids."""

    def _settle(self, dataset: Dataset, lengths: Sequence[int]) -> None:
        """Set the space, once the alphabet is known."""
        if self.length is None:
            if self.streaming:
                raise DataError("a streaming tokenizer needs length=, the number of symbols in a window")
            self.length = max(1, *lengths) if len(lengths) else 1
        elif self.length < 1:
            raise DataError(f"length={self.length} is no window; give at least 1")
        self.classes = dataset.classes if dataset.labels is not None else ()
        self._space = Space(
            shape=(self.length,),
            sizes=self.alphabet + (not self.streaming),
            stop=None if self.streaming else self.alphabet,
            classes=len(self.classes),
        )

    def encode(self, dataset: Dataset) -> Tensor:
        """Values int64 ``[n, N]``: padded with the stop symbol, or (streaming) of items that fill the window.

        Raises:
            DataError: an item is too long, or (streaming) not exactly one window; it names the item.
        """
        self._expect(dataset)
        n = self.space.n
        rows = self._ids(dataset)
        values = np.full((len(rows), n), self.alphabet, dtype=np.int64)
        for i, row in enumerate(rows):
            if len(row) > n or (self.streaming and len(row) < n):
                way = "use streams() or windows()" if self.streaming else "give a larger length= or split it"
                raise DataError(f"item {i} has {len(row)} symbols where the model takes {n}; {way}")
            values[i, : len(row)] = row
        return torch.from_numpy(values)

    def decode(self, values: Tensor) -> Dataset:
        """The items of values ``[n, N]``, each up to its first stop symbol."""
        return self.from_streams(list(values)) if self.streaming else self._items([self._cut(v) for v in values])

    def size(self, dataset: Dataset, item: int) -> int:
        return len(self._ids(dataset.take([item]))[0])

    def given(self, given: Any) -> tuple[Tensor, Tensor]:
        if self.streaming:
            return super().given(given)
        dataset = self._part(given)
        count = len(self._ids(dataset)[0])
        return self.encode(dataset)[0], torch.arange(self.space.n) < count

    def symbols(self, part: Any) -> tuple[int, ...]:
        """The symbols of a part of an item, given as an item is (a text; a list of symbols)."""
        return tuple(int(i) for i in self._ids(self._part(part))[0])

    def _cut(self, row: Tensor) -> np.ndarray:
        ids = row.cpu().numpy().astype(np.int64)
        ends = np.flatnonzero(ids == self.alphabet)
        return ids[: ends[0]] if len(ends) else ids

    def streams(self, dataset: Dataset) -> list[Tensor]:
        if not self.streaming:
            return super().streams(dataset)
        self._expect(dataset)
        return [torch.from_numpy(row) for row in self._ids(dataset)]

    def from_streams(self, streams: Sequence[Tensor]) -> Dataset:
        if not self.streaming:
            return super().from_streams(streams)
        return self._items([s.cpu().numpy().astype(np.int64) for s in streams])
