"""Sequences of symbols from a vocabulary that is learned from the data."""

from __future__ import annotations

from typing import Any

import numpy as np

from ancestral.data.base import Dataset
from ancestral.data.sequences import Sequences, Symbol
from ancestral.errors import DataError
from ancestral.tokenizers.base import SequenceTokenizer


class Symbols(SequenceTokenizer):
    """One site per symbol; the id after the vocabulary ends and pads.

    Args:
        length: sites N; None takes the longest training sequence.

    Shapes:
        values: int64 ``[n, length]`` of (vocabulary + 1) sizes.
    """

    modality = "sequences"

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        self._adopt([])
        self.kind = "list"

    def _adopt(self, vocabulary: list[Symbol]) -> None:
        self.vocabulary = vocabulary
        self._index = {symbol: i for i, symbol in enumerate(vocabulary)}
        self.alphabet = len(vocabulary)

    def fit(self, dataset: Dataset) -> Symbols:
        self._expect(dataset)
        assert isinstance(dataset, Sequences)
        seen = {symbol for item in dataset.items for symbol in item}
        # Numbers in their order, then words in theirs: the same data give the same ids on every machine.
        self._adopt(sorted(seen, key=lambda s: (isinstance(s, str), s)))
        self.kind = dataset.kind
        self._settle(dataset, [len(item) for item in dataset.items])
        return self

    def _ids(self, dataset: Dataset) -> list[np.ndarray]:
        assert isinstance(dataset, Sequences)
        rows = []
        for i, item in enumerate(dataset.items):
            try:
                rows.append(np.array([self._index[s] for s in item], dtype=np.int64))
            except KeyError as error:
                raise DataError(
                    f"item {i} has the symbol {error.args[0]!r}, which the training data did not have; "
                    "remove the item "
                    "or fit on data that have it"
                ) from error
        return rows

    def _part(self, content: Any) -> Sequences:
        return Sequences([content])

    def _items(self, rows: list[np.ndarray]) -> Sequences:
        for i, row in enumerate(rows):
            if len(row) and (row.min() < 0 or row.max() >= self.alphabet):
                raise DataError(f"item {i} has the value {int(row.max())}, beyond the {self.alphabet} symbols")
        return Sequences([[self.vocabulary[j] for j in row] for row in rows], kind=self.kind)

    def state(self) -> dict[str, Any]:
        return self._base_state() | {
            "length": self.length,
            "vocabulary": self.vocabulary,
            "source": self.kind,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.length, self.kind = state["length"], state["source"]
        self._adopt(list(state["vocabulary"]))
        self._load_base(state)
