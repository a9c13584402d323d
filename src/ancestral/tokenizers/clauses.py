"""A table's rows as text: clauses "column is value" in any order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancestral.data.base import Dataset
from ancestral.data.table import Table
from ancestral.data.text import Text
from ancestral.errors import DataError
from ancestral.space import Space
from ancestral.tokenizers.base import Tokenizer
from ancestral.tokenizers.text import BPE, Bytes

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


class Clauses(Tokenizer):
    """One clause per column, ``age is 39``, in bytes or byte-pair codes; a symbol of its own parts the clauses.

    A row has as many texts as its columns have orders. :meth:`encode` writes the known cells in the order of the
    columns and then the missing ones, so that what is known is always the beginning. The next to last symbol
    ends a clause, the last one ends and pads the row.

    Args:
        pieces: "bytes" or "bpe" (learned from the clauses).
        vocab: byte-pair codes to learn.

    Shapes:
        values: int64 ``[n, length]``, length that of a row of the longest clauses.
    """

    modality = "table"
    many_codes = True

    def __init__(self, pieces: str = "bpe", vocab: int = 1024) -> None:
        if pieces not in ("bytes", "bpe"):
            raise DataError(f"pieces={pieces!r} is unknown; choose bytes or bpe")
        self.pieces, self.vocab = pieces, vocab
        self._codec: Bytes | BPE = Bytes(None, False) if pieces == "bytes" else BPE(vocab, None, False)
        self.names: list[str] = []
        self.schema: dict[str, dict[str, Any]] = {}
        self.form: dict[str, Any] = {}
        # Per column: the cells seen in training, or None for numbers, of which any of at most so many characters fits.
        self._seen: dict[str, set[str] | None] = {}
        self._longest: dict[str, int] = {}

    def fit(self, dataset: Dataset) -> Clauses:
        self._expect(dataset)
        assert isinstance(dataset, Table)
        self.names = dataset.columns
        for name in self.names:
            cells = set(dataset.cells(name))
            self.schema[name] = dataset.schema[name]
            known = {c for c in cells if c is not None}
            plain = len(known) > 1 and all(_NUMBER.fullmatch(c) for c in known)
            self._seen[name] = None if plain else known
            self._longest[name] = max((len(c) for c in known), default=0)
        self.form = dataset.form | {"names": None}
        self.classes = dataset.classes if dataset.labels is not None else ()
        texts = {name: sorted({_clause(name, c) for c in dataset.cells(name)}) for name in self.names}
        self._codec.fit(Text([t for each in texts.values() for t in each]))
        lengths = [max(len(ids) for ids in self._pieces(each)) + 1 for each in texts.values()]
        unknown = [len(ids) + 1 for ids in self._pieces([_clause(name, None) for name in self.names])]
        self._settle(sum(map(max, lengths, unknown)) + 1)
        return self

    def _settle(self, length: int) -> None:
        self._space = Space(
            shape=(length,), sizes=self._codec.alphabet + 2, stop=self.end + 1, classes=len(self.classes)
        )

    @property
    def end(self) -> int:
        """The symbol that ends a clause; the one after it ends the row."""
        return self._codec.alphabet

    def _pieces(self, texts: Sequence[str]) -> list[np.ndarray]:
        return self._codec._ids(Text(list(texts)))

    # -- rows to values

    def encode(self, dataset: Dataset) -> Tensor:
        """Values int64 ``[n, N]``.

        Raises:
            DataError: other columns than in training, or a row that is too long.
        """
        return self._encode(dataset)[0]

    def _encode(self, dataset: Dataset) -> tuple[Tensor, Tensor]:
        """Values, and bool ``[n, N]``: the sites of the clauses of known cells (all if no cell is missing)."""
        self._expect(dataset)
        assert isinstance(dataset, Table)
        self._same_columns(dataset)
        n, length = len(dataset), self.space.n
        clauses: dict[str, list[np.ndarray]] = {}
        for name in self.names:
            cells = self._adapted(dataset, name)
            distinct = list(dict.fromkeys(cells))
            ids = dict(zip(distinct, self._pieces([_clause(name, c) for c in distinct])))
            clauses[name] = [np.append(ids[c], self.end) for c in cells]
        present = np.stack([[c is not None and c != "" for c in dataset.cells(name)] for name in self.names], 1)
        values = np.full((n, length), self.end + 1, dtype=np.int64)
        known = np.ones((n, length), dtype=bool)
        for i in range(n):
            order = np.argsort(~present[i], kind="stable")
            parts = [clauses[self.names[k]][i] for k in order]
            row = np.concatenate(parts)
            if len(row) >= length:
                raise DataError(
                    f"row {i} takes {len(row)} symbols where the model's rows have at most {length - 1}; shorten its "
                    "longest cell, or fit on a table that has it"
                )
            values[i, : len(row)] = row
            if not present[i].all():
                known[i, sum(len(p) for p in parts[: int(present[i].sum())]) :] = False
        return torch.from_numpy(values), torch.from_numpy(known)

    def _adapted(self, dataset: Table, name: str) -> list[str | None]:
        """The cells as the training table would have written them: a frame's 39.0 is the csv's 39."""
        cells = list(dataset.cells(name))
        if dataset.schema[name] == self.schema[name]:
            return cells
        missing: str | None = "" if self.schema[name]["dtype"] == "csv" else None
        table = {}
        for cell in dict.fromkeys(cells):
            whole = cell[:-2] if cell is not None and cell.endswith(".0") else None
            table[cell] = missing if cell is None or cell == "" else cell
            if not self._fits(name, cell) and whole is not None and self._fits(name, whole):
                table[cell] = whole
        return [table[cell] for cell in cells]

    def _same_columns(self, dataset: Table) -> None:
        lacking = [name for name in self.names if name not in dataset.columns]
        if lacking:
            raise DataError(f"the table has no column {lacking[0]!r}, which the model knows; add it, empty if need be")
        extra = [name for name in dataset.columns if name not in self.names]
        if extra:
            raise DataError(f"the model knows no column {extra[0]!r}; remove it or fit on a table that has it")

    def known(self, dataset: Dataset) -> Tensor:
        """Bool ``[n, N]``: the clauses of the cells that are not missing or empty, which come first."""
        return self._encode(dataset)[1]

    def given(self, given: Any) -> tuple[Tensor, Tensor]:
        if not isinstance(given, dict):
            raise DataError(f"given= is a {type(given).__name__}; for a table give a dict of column: value")
        row: list[int] = []
        for name, value in given.items():
            if name not in self.names:
                raise DataError(f"there is no column {name!r}; there are {', '.join(map(repr, self.names))}")
            if not self._fits(name, str(value)):
                seen = self._seen[name]
                some = "numbers" if seen is None else ", ".join(map(repr, sorted(seen)[:8]))
                raise DataError(f"column {name!r} has no value {value!r}; it takes {some}")
            row += [*self._pieces([_clause(name, str(value))])[0].tolist(), self.end]
        values = torch.full((self.space.n,), self.end + 1, dtype=torch.int64)
        values[: len(row)] = torch.tensor(row, dtype=torch.int64)
        return values, torch.arange(self.space.n) < len(row)

    # -- values to rows

    def decode(self, values: Tensor) -> Table:
        """The rows of drawn values ``[n, N]``; columns without a clause that fits are missing cells."""
        return self._table([{c: v for c, v in row if self._fits(c, v)} for row in self._parse(values)])

    def decode_exact(self, values: Tensor, extra: bytes = b"") -> Table:
        return self._table([dict(row) for row in self._parse(values)])

    def decode_given(self, values: Tensor, dataset: Dataset, known: Tensor | None = None) -> Table:
        """The completed rows: cells that were there are those of ``dataset``, whichever sites they stood at."""
        assert isinstance(dataset, Table)
        drawn = self.decode(values)
        cells = {}
        for name in self.names:
            both = zip(self._adapted(dataset, name), drawn.cells(name))
            cells[name] = np.array([new if old is None or old == "" else old for old, new in both], dtype=object)
        return self._finish(cells)

    def valid(self, values: Tensor) -> Tensor:
        """Bool ``[n]``: rows that end, and name every column exactly once with a value that fits.

        A value fits if training had it or, in a column of numbers, if it is a number that is not longer.
        """
        ended = (values == self.end + 1).any(1).tolist()
        good = []
        for row, over in zip(self._parse(values), ended):
            right = over and len(row) == len(self.names) == len(dict(row))
            good.append(right and all(self._fits(name, cell) for name, cell in row))
        return torch.tensor(good, dtype=torch.bool, device=values.device)

    def _parse(self, values: Tensor) -> list[list[tuple[str, str | None]]]:
        """(column, cell) of every clause of every row; an unreadable clause is ("", its text)."""
        rows = []
        cache: dict[bytes, tuple[str, str | None]] = {}
        for row in values.detach().cpu().numpy().astype(np.int64):
            stops = np.flatnonzero(row == self.end + 1)
            row = row[: stops[0]] if len(stops) else row
            clauses = np.split(row, np.flatnonzero(row == self.end) + 1)
            if len(clauses) and len(clauses[-1]) == 0:
                clauses.pop()
            found = []
            for clause in clauses:
                key = clause.tobytes()
                if key not in cache:
                    cache[key] = self._read(clause)
                found.append(cache[key])
            rows.append(found)
        return rows

    def _read(self, clause: np.ndarray) -> tuple[str, str | None]:
        whole = len(clause) > 0 and clause[-1] == self.end
        payload = self._codec._items([clause[clause != self.end]]).payloads[0]
        text = payload.decode("utf-8", "replace")
        if not whole:
            return "", text
        # The longest name wins where one is the beginning of another.
        for name in sorted(self.names, key=len, reverse=True):
            if text == _clause(name, None):
                return name, None
            if text.startswith(_clause(name, "")):
                return name, text[len(_clause(name, "")) :]
        return "", text

    def _fits(self, name: str, cell: str | None) -> bool:
        if name not in self.schema:
            return False
        if cell is None:
            return self.schema[name]["dtype"] != "csv"
        seen = self._seen[name]
        if seen is None:
            return len(cell) <= self._longest[name] and _NUMBER.fullmatch(cell) is not None
        return cell in seen

    def _table(self, rows: list[dict[str, str | None]]) -> Table:
        cells = {}
        for name in self.names:
            lacking: str | None = "" if self.schema[name]["dtype"] == "csv" else None
            cells[name] = np.array([row.get(name, lacking) for row in rows], dtype=object)
        return self._finish(cells)

    def _finish(self, cells: dict[str, np.ndarray]) -> Table:
        return Table.from_cells(cells, self.schema, self.form["kind"]).with_form(self.form)

    def size(self, dataset: Dataset, item: int) -> int:
        return len(self.names)

    # -- saving

    def state(self) -> dict[str, Any]:
        seen = {name: None if cells is None else sorted(cells) for name, cells in self._seen.items()}
        return self._base_state() | {
            "pieces": self.pieces,
            "vocab": self.vocab,
            "codec": self._codec.state(),
            "form": self.form,
            # Lists keep the order of the columns through any JSON writer.
            "columns": [[name, self.schema[name], seen[name], self._longest[name]] for name in self.names],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        Clauses.__init__(self, state["pieces"], state["vocab"])
        self._codec.load_state(state["codec"])
        self._load_base(state)
        self.form = dict(state["form"])
        for name, spec, seen, longest in state["columns"]:
            self.names.append(name)
            self.schema[name], self._longest[name] = spec, longest
            self._seen[name] = None if seen is None else set(seen)


def _clause(name: str, cell: str | None) -> str:
    return f"{name} is unknown to all" if cell is None else f"{name} is {cell}"


def shuffle_clauses(values: Tensor, end: int, keys: Tensor) -> Tensor:
    """Rows with their clauses in another order.

    Args:
        values: int64 ``[B, N]``; a clause goes up to and includes the symbol ``end``, the rest of the row stays last.
        end: that symbol.
        keys: float ``[B, >= clauses]``: a row's clauses are sorted by its first ones; below 1.

    Returns:
        int64 ``[B, N]``.
    """
    ends = (values == end).long()
    clause = ends.cumsum(1) - ends  # number of the clause that a site is in
    rest = clause >= ends.sum(1, keepdim=True)
    key = torch.gather(keys, 1, clause.clamp(max=keys.shape[1] - 1)).masked_fill(rest, 2.0)
    return torch.gather(values, 1, torch.argsort(key, dim=1, stable=True))
