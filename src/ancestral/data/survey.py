"""One pass over a table too large for memory: how many rows, and a bounded sample that stands for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from ancestral.data.table import Table
from ancestral.errors import DataError
from ancestral.noise import hash64

ROWS = 100_000
"""Rows of the random sample."""

WORDS = 1 << 15
"""Distinct words of a column that are all kept in sight."""

NUMBERS = 1 << 10
"""Distinct numbers of a column that are all kept in sight; beyond that its extremes are."""


def survey(chunks: Iterable[Table], rows: int = ROWS, words: int = WORDS, numbers: int = NUMBERS) -> tuple[int, Table]:
    """Count the rows and choose a sample to fit a tokenizer on.

    The sample is a uniform one of ``rows`` rows, the same for the same table, and beside it a row for each distinct
    word (up to ``words`` a column), for each distinct number of columns that have at most ``numbers`` of them, for
    the least and the greatest number of the others, and for a missing cell: no common value and no part of a range
    escapes the tokenizer because the sample missed it.

    Args:
        chunks: the table's rows.
        rows, words, numbers: bounds of the sample.

    Returns:
        Number of rows, and the sample.

    Raises:
        DataError: no rows.
    """
    import pandas as pd

    kept: list[Any] = []
    keys: list[np.ndarray] = []
    limit = np.iinfo(np.int64).max
    witnesses: dict[str, _Witness] = {}
    count, like = 0, None
    for chunk in chunks:
        like = like or chunk
        key = hash64(torch.arange(count, count + len(chunk))).numpy()
        chosen = np.flatnonzero(key < limit)
        kept.append(chunk.frame.iloc[chosen])
        keys.append(key[chosen])
        if sum(map(len, keys)) > 2 * rows:
            kept, keys, limit = _prune(kept, keys, rows)
        for name in chunk.columns:
            witnesses.setdefault(name, _Witness(words, numbers)).look(chunk.frame, name)
        count += len(chunk)
    if like is None:
        raise DataError("the table has no rows; it needs at least one")
    if count > rows:
        kept, keys, limit = _prune(kept, keys, rows)
        kept += [part for witness in witnesses.values() for part in witness.rows()]
    frame = pd.concat([part[like.columns] for part in kept], ignore_index=True)
    return count, like.with_frame(frame)


def _prune(kept: list[Any], keys: list[np.ndarray], rows: int) -> tuple[list[Any], list[np.ndarray], int]:
    """Only the ``rows`` rows of the smallest keys."""
    import pandas as pd

    frame, key = pd.concat(kept, ignore_index=True), np.concatenate(keys)
    best = np.sort(np.argpartition(key, rows - 1)[:rows])
    return [frame.iloc[best]], [key[best]], int(key[best].max())


class _Witness:
    """Rows that show a column's distinct values, or its extremes if there are too many."""

    def __init__(self, words: int, numbers: int) -> None:
        self._words, self._numbers = words, numbers
        self._seen: set[Any] | None = set()
        self._shown: list[Any] = []
        self._extremes: dict[str, tuple[Any, Any]] = {}
        self._missing: Any = None

    def look(self, frame: Any, name: str) -> None:
        """Note what a chunk adds."""
        column = frame[name]
        if self._missing is None and (gaps := column.isna().to_numpy()).any():
            self._missing = frame.iloc[[int(np.flatnonzero(gaps)[0])]]
        if self._seen is not None:
            self._distinct(frame, column)
        if self._seen is None:
            self._range(frame, column)

    def _distinct(self, frame: Any, column: Any) -> None:
        import pandas as pd

        assert self._seen is not None
        codes, uniques = pd.factorize(column, use_na_sentinel=True)
        values = list(uniques)
        new = [i for i, value in enumerate(values) if value not in self._seen]
        numeric = pd.to_numeric(pd.Series(values[:200], dtype=object), errors="coerce").notna().mean() > 0.5
        room = (self._numbers if numeric or not isinstance(next(iter(values), ""), str) else self._words) - len(
            self._seen
        )
        if len(new) > room:
            self._seen = None
            if numeric:
                self._shown = []
                return
            new = new[: max(room, 0)]
        if new:
            first = np.full(len(values), len(codes))
            np.minimum.at(first, codes[codes >= 0], np.flatnonzero(codes >= 0))
            self._shown.append(frame.iloc[np.sort(first[new])])
            if self._seen is not None:
                self._seen.update(values[i] for i in new)

    def _range(self, frame: Any, column: Any) -> None:
        """The rows of the least and the greatest value, as numbers and as words."""
        import pandas as pd

        views = {"number": pd.to_numeric(column, errors="coerce")} if _texts(column) else {"value": column}
        if _texts(column):
            views["word"] = column.where(column != "") if column.dtype == object else column
        for view, values in views.items():
            values = values.dropna().reset_index(drop=False)
            if not len(values):
                continue
            series = values.iloc[:, 1]
            for side, place in (("least", series.argmin()), ("greatest", series.argmax())):
                value, row = series.iloc[place], frame.iloc[[int(values.iloc[place, 0])]]
                before = self._extremes.get(view + side)
                if before is None or (value < before[0] if side == "least" else value > before[0]):
                    self._extremes[view + side] = (value, row)

    def rows(self) -> list[Any]:
        """The rows kept."""
        missing = [] if self._missing is None else [self._missing]
        return [*self._shown, *(row for _, row in self._extremes.values()), *missing]


def _texts(column: Any) -> bool:
    import pandas as pd

    return bool(pd.api.types.is_object_dtype(column.dtype) or pd.api.types.is_string_dtype(column.dtype))
