"""A table's rows: every column is one site or a few, coarse to fine, and every cell comes back exactly."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancestral.data.arrow import plain_fields
from ancestral.data.base import Dataset
from ancestral.data.cells import as_given, holding, widened
from ancestral.data.table import Table, table_like
from ancestral.errors import DataError, StreamError
from ancestral.space import Lexicon, Space
from ancestral.tokenizers.base import Tokenizer
from ancestral.tokenizers.checks import refuse_another_type
from ancestral.tokenizers.codecs import Cell, Codec, Numbers, codec_from_state, fit_codec, is_listed, plain_type

_ORDERED = 24
"""Fewest symbols of a site that are told to be ordered."""


class Columns(Tokenizer):
    """Mixed columns as categories.

    Kinds are inferred per column: ``integer``, ``decimal``, ``float``, ``date``, ``datetime``, ``boolean``,
    ``categorical``, ``text`` (mostly distinct words), ``constant``, ``missing``. A missing cell is a value
    like any other. No site has more than 256 categories: wide numbers are a quantile bin and then digits, and
    large vocabularies are numbered by frequency and spelled in digits. A cell that training did not have and
    that no digits reach takes the column's escape symbol; its text goes beside the values
    (:meth:`encode_with_escapes`).

    Args:
        bins: most quantile bins of a number; small data get fewer.
        lists: list the values of wide numbers that are met again and again, and say so to the network
            (:class:`ancestral.space.Lexicon`); such columns come first among the sites.

    Shapes:
        values: int64 ``[n, N]``, N the sites of all columns, the k-th below ``space.sizes[k]``.

    Attributes:
        columns: name -> slice of its sites.
        kinds: name -> inferred kind.
    """

    modality = "table"

    def __init__(self, bins: int = 128, lists: bool = False) -> None:
        if not 2 <= bins <= 255:
            raise DataError(f"bins={bins} does not fit a site of 256 categories; choose 2 to 255")
        self.bins, self.lists = bins, lists
        self._codecs: dict[str, Codec] = {}
        self.schema: dict[str, dict[str, Any]] = {}
        self.form: dict[str, Any] = {}

    def fit(self, dataset: Dataset) -> Columns:
        self._expect(dataset)
        assert isinstance(dataset, Table)
        self._codecs, self.schema = {}, {}
        for name in dataset.columns:
            codes, cells = _distinct(dataset.cells(name))
            counts = np.bincount(codes, minlength=len(cells)).astype(np.int64)
            self.schema[name] = dataset.schema[name]
            self._codecs[name] = fit_codec(cells, counts, self.bins, self.schema[name]["dtype"], self.lists)
        self.form = dataset.form | {"names": None}
        self.classes = dataset.classes if dataset.labels is not None else ()
        self._settle()
        return self

    def _settle(self) -> None:
        sizes: list[int] = []
        found: dict[str, slice] = {}
        self._plain: dict[str, str] | None = None
        lexicons: list[Lexicon] = []
        # What the network knows most about the others from comes first.
        for name, codec in sorted(self._codecs.items(), key=lambda pair: not (self.lists and is_listed(pair[1]))):
            found[name] = sites = slice(len(sizes), len(sizes) + len(codec.sizes))
            sizes.extend(codec.sizes)
            if self.lists and is_listed(codec):
                lexicons.append(Lexicon(tuple(range(sites.start, sites.stop)), isinstance(codec, Numbers)))
        self.columns: dict[str, slice] = {name: found[name] for name in self._codecs}
        self._space = Space(
            shape=(len(sizes),),
            sizes=tuple(sizes),
            classes=len(self.classes),
            groups=tuple(
                tuple(range(s.start, s.stop)) for s in self.columns.values() if self.lists and s.stop - s.start > 1
            ),
            lexicons=tuple(lexicons),
            ordered=self._ordered(sizes, {s for lexicon in lexicons if lexicon.counted for s in lexicon.sites[1:]}),
        )

    def _ordered(self, sizes: list[int], mute: set[int]) -> tuple[int, ...]:
        """Sites of numbers with symbols enough for their order to tell something; not the ``mute`` ones."""
        numbers = (self.columns[name] for name, codec in self._codecs.items() if isinstance(codec, Numbers))
        sites = {s.start + i for s in numbers for i in range(s.stop - s.start)} - mute
        return tuple(sorted(site for site in sites if sizes[site] >= _ORDERED))

    @property
    def kinds(self) -> dict[str, str]:
        """What every column was taken for."""
        return {name: codec.kind for name, codec in self._codecs.items()}

    @property
    def site_names(self) -> list[str]:
        """A name per site: the column's, with ``.1``, ``.2`` ... for its finer digits."""
        names = {
            s.start + i: name + (f".{i}" if i else "")
            for name, s in self.columns.items()
            for i in range(s.stop - s.start)
        }
        return [names[site] for site in range(self.space.n)]

    def encode(self, dataset: Dataset) -> Tensor:
        """Values int64 ``[n, N]``; cells that need it stand as the escape symbol, without their text.

        Raises:
            DataError: the columns are not those of the training table (their order does not matter), or one holds
                another type throughout.
        """
        values, cells = self._encode(dataset)
        for name, codec, strange in self._strange(values):
            refuse_another_type(name, codec.kind, str(codec.common), cells[name].tolist(), strange)
        return values

    def _strange(self, values: Tensor) -> Iterator[tuple[str, Codec, np.ndarray]]:
        """Columns with escaped cells, and where they are: bool ``[n]``."""
        for name, sites in self.columns.items():
            codec = self._codecs[name]
            strange = (values[:, sites.start] == codec.escape).numpy()
            if strange.any():
                yield name, codec, strange

    def encode_with_escapes(self, dataset: Dataset) -> tuple[Tensor, bytes]:
        """Values int64 ``[n, N]`` and the text of the escaped cells, which :meth:`decode` takes back.

        The text is empty if no cell is escaped, else a zlib stream of the cells in row order, each its UTF-8
        length + 1 as a base-128 number (0 for a missing cell) and its UTF-8 bytes.

        Raises:
            DataError: as for :meth:`encode`.
        """
        values, cells = self._encode(dataset, exact=True)
        found: list[Cell] = [cells[name][row] for row, name in self._escaped(values.numpy())]
        return values, _pack(found)

    def _encode(self, dataset: Dataset, exact: bool = False) -> tuple[Tensor, dict[str, np.ndarray]]:
        """Values, and the cells as the data have them; ``exact`` escapes a cell that is only written in another way."""
        self._expect(dataset)
        assert isinstance(dataset, Table)
        values = np.zeros((len(dataset), self.space.n), dtype=np.int64)
        self._same_columns(dataset)
        cells: dict[str, np.ndarray] = {}
        for name, sites in self.columns.items():
            codec = self._codecs[name]
            codes, distinct = _distinct(dataset.cells(name))
            schema = dataset.schema[name]
            mine = distinct
            if schema != self.schema[name]:
                mine = [self._adapt(codec, name, c) for c in distinct]
            symbols = codec.encode(mine)
            if exact and mine is not distinct:
                back = [as_given(c, self.schema[name], schema) for c in codec.decode(symbols)]
                symbols[[b != c for b, c in zip(back, distinct)]] = [codec.escape] + [0] * (len(codec.sizes) - 1)
            table = np.empty(len(distinct), dtype=object)
            table[:] = distinct
            cells[name] = table[codes]
            values[:, sites] = symbols[codes]
        return torch.from_numpy(values), cells

    def _adapt(self, codec: Codec, name: str, cell: Cell) -> Cell:
        """The cell as the training table would have written it: a frame's 39.0 is the csv's 39."""
        missing: Cell = "" if self.schema[name]["dtype"] == "csv" else None
        return missing if cell is None or cell == "" else codec.near(cell)

    def _same_columns(self, dataset: Table) -> None:
        lacking = [name for name in self.columns if name not in dataset.columns]
        if lacking:
            raise DataError(f"the table has no column {lacking[0]!r}, which the model knows; add it, empty if need be")
        extra = [name for name in dataset.columns if name not in self.columns]
        if extra:
            raise DataError(f"the model knows no column {extra[0]!r}; remove it or fit on a table that has it")

    def known(self, dataset: Dataset) -> Tensor:
        """Bool ``[n, N]``: False at all sites of a cell that is missing or empty."""
        self._expect(dataset)
        assert isinstance(dataset, Table)
        self._same_columns(dataset)
        out = np.ones((len(dataset), self.space.n), dtype=bool)
        for name, sites in self.columns.items():
            out[:, sites] = np.array([c is not None and c != "" for c in dataset.cells(name)], dtype=bool)[:, None]
        return torch.from_numpy(out)

    def encode_column(self, name: str, cells: Sequence[Any]) -> Tensor:
        """Symbols of one column's cells, int64 ``[n, its sites]``: what conditioning on the column fixes.

        Args:
            name: of the column.
            cells: words or numbers, written in any way; None is a missing cell.

        Raises:
            DataError: an unknown column, or a value that it cannot take.
        """
        if name not in self.columns:
            raise DataError(f"there is no column {name!r}; there are {', '.join(map(repr, self.columns))}")
        codec = self._codecs[name]
        adapted = [self._adapt(codec, name, None if _missing(c) else str(c)) for c in cells]
        symbols = codec.encode(adapted)
        bad = np.flatnonzero(symbols[:, 0] == codec.escape)
        if len(bad):
            raise DataError(f"column {name!r} has no value {cells[int(bad[0])]!r}; it takes {_examples(codec)}")
        return torch.from_numpy(symbols)

    def decode(self, values: Tensor, escapes: bytes = b"") -> Table:
        """The table with these values ``[n, N]``.

        Args:
            values: every symbol below its size; digits that no cell has give the nearest cell.
            escapes: from :meth:`encode_with_escapes`; without it an escaped cell is the column's commonest.

        Raises:
            StreamError: the escapes do not belong to the values.
        """
        if escapes:
            table = Table.from_cells(self._cells(values, escapes, self.schema), self.schema, self.form["kind"])
        else:
            table = Table.from_codes(self._coded(self._array(values)), self.schema, self.form["kind"])
        return self._typed(table.with_form(self.form))

    def _typed(self, table: Table) -> Table:
        """The table, and of a csv the types that parquet shall have its plain numbers and truth values in."""
        if table.kind == "csv":
            if self._plain is None:
                types = {name: plain_type(codec) for name, codec in self._codecs.items()}
                self._plain = plain_fields({name: kind for name, kind in types.items() if kind is not None})
            table.fields = self._plain
        return table

    def _cells(self, values: Tensor, escapes: bytes, schema: dict[str, dict[str, Any]]) -> dict[str, np.ndarray]:
        """Cells of every column, as a table of this ``schema`` has them."""
        array = self._array(values)
        cells: dict[str, np.ndarray] = {}
        for name, (codes, written) in self._coded(array).items():
            if schema[name] != self.schema[name]:
                written[:] = [as_given(c, self.schema[name], schema[name]) for c in written]
            cells[name] = written[codes]
        if escapes:
            for (row, name), cell in zip(places := self._escaped(array), _unpack(escapes, len(places))):
                cells[name][row] = cell
        return cells

    def _array(self, values: Tensor) -> np.ndarray:
        """The values as int64 ``[n, N]``.

        Raises:
            DataError: some are no symbols of their sites.
        """
        array = values.detach().cpu().numpy().astype(np.int64).reshape(-1, self.space.n)
        if len(array) and ((array < 0).any() or (array >= np.array(self.space.sizes)).any()):
            raise DataError("the values are not those of this table's sites; they lie outside the sizes of its space")
        return array

    def _coded(self, array: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Of every column codes int64 ``[n]`` and the cells they stand for, object ``[m]``."""
        coded = {}
        for name, sites in self.columns.items():
            distinct, codes = _rows(array[:, sites], self._codecs[name].sizes)
            coded[name] = codes, self._codecs[name].decode(distinct)
        return coded

    def encode_exact(self, dataset: Dataset) -> tuple[Tensor, bytes]:
        values, escapes = self.encode_with_escapes(dataset)
        assert isinstance(dataset, Table)
        schema = {name: dataset.schema[name] for name in dataset.columns}
        own = list(schema.items()) == list(self.schema.items())
        told = b"" if own else json.dumps(schema, ensure_ascii=False).encode()
        return values, _varint(len(told)) + told + escapes if told or escapes else b""

    def decode_exact(self, values: Tensor, extra: bytes = b"") -> Table:
        size, begin = _read_varint(extra, 0) if extra else (0, 0)
        end = begin + size
        schema = json.loads(extra[begin:end]) if size else self.schema
        cells = self._cells(values, extra[end:], schema)
        return table_like({name: cells[name] for name in schema}, schema, self.form)

    def decode_given(self, values: Tensor, dataset: Dataset, known: Tensor | None = None) -> Table:
        """The completed table: known cells are those of ``dataset``, to the letter; others are drawn.

        Columns keep the types of ``dataset`` wherever these can hold what was drawn.
        """
        assert isinstance(dataset, Table)
        shown = self.known(dataset) if known is None else known
        _, own = self._encode(dataset)
        schema = {name: dataset.schema[name] for name in dataset.columns}
        cells = self._cells(values, b"", schema)
        for name, sites in self.columns.items():
            there = shown[:, sites].all(1).numpy()
            kept = own[name]
            if widened(schema[name], self.schema[name]):
                kept = np.array([self._adapt(self._codecs[name], name, c) for c in kept], dtype=object)
                schema[name] = self.schema[name]
            cells[name] = np.where(there, kept, cells[name])
            schema[name] = holding(cells[name], schema[name], self.schema[name])
        form = dataset.form | {"names": None}
        return self._typed(table_like({name: cells[name] for name in schema}, schema, form))

    def size(self, dataset: Dataset, item: int) -> int:
        return len(self.columns)

    def given(self, given: Any) -> tuple[Tensor, Tensor]:
        if not isinstance(given, dict):
            raise DataError(f"given= is a {type(given).__name__}; for a table give a dict of column: value")
        values = torch.zeros(self.space.n, dtype=torch.int64)
        known = torch.zeros(self.space.n, dtype=torch.bool)
        for name, value in given.items():
            name = str(name)  # as the table's are, whose frame may have numbered its columns
            symbols = self.encode_column(name, [value])[0]
            values[self.columns[name]], known[self.columns[name]] = symbols, True
        return values, known

    def _escaped(self, values: np.ndarray) -> list[tuple[int, str]]:
        """(row, column) of the escaped cells, in row order."""
        names = list(self.columns)
        firsts = [self.columns[name].start for name in names]
        symbols = np.array([codec.escape for codec in self._codecs.values()])
        rows, columns = np.nonzero(values[:, firsts] == symbols)
        return [(row, names[column]) for row, column in zip(rows.tolist(), columns.tolist())]

    def state(self) -> dict[str, Any]:
        return self._base_state() | {
            "bins": self.bins,
            "lists": self.lists,
            "form": self.form,
            # Lists keep the order of the columns through any JSON writer.
            "columns": [[name, self.schema[name], codec.state()] for name, codec in self._codecs.items()],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self._load_base(state)
        self.bins, self.lists, self.form = state["bins"], state.get("lists", False), dict(state["form"])
        self.schema = {name: spec for name, spec, _ in state["columns"]}
        self._codecs = {name: codec_from_state(codec) for name, _, codec in state["columns"]}
        if self._codecs:
            self._settle()


def _rows(symbols: np.ndarray, sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rows among which all ``symbols`` ``[n, s]`` are, ``[m, s]``, and the number of each one's row, ``[n]``."""
    if len(sizes) == 1:
        return np.arange(sizes[0], dtype=np.int64)[:, None], symbols[:, 0]
    if math.prod(sizes) >= 2**63:
        distinct, codes = np.unique(symbols, axis=0, return_inverse=True)
        return distinct, codes.reshape(-1)
    keys, codes = np.unique(np.ravel_multi_index(tuple(symbols.T), sizes), return_inverse=True)
    return np.stack(np.unravel_index(keys, sizes), 1), codes


def _distinct(cells: np.ndarray) -> tuple[np.ndarray, list[Cell]]:
    """Codes int64 ``[n]`` into the distinct cells, and these."""
    import pandas as pd

    codes, uniques = pd.factorize(cells, use_na_sentinel=True)
    distinct: list[Cell] = list(uniques)
    if (codes < 0).any():
        codes = np.where(codes < 0, len(distinct), codes)
        distinct.append(None)
    return codes, distinct


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _examples(codec: Codec) -> str:
    state = codec.state()
    if state["codec"] == "vocabulary":
        shown = [repr(c) for c in state["cells"][:8]]
        return ", ".join(shown) + (" ..." if len(state["cells"]) > 8 else "")
    low, high = codec.form.write(np.array([state["starts"][0], state["last"]]))  # type: ignore[attr-defined]
    return f"{low} to {high}"


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number % 128 + 128)
        number //= 128
    return bytes([*out, number])


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    """The number at ``place``, and the place behind it."""
    number = shift = 0
    while True:
        byte = data[place]
        number += byte % 128 << shift
        shift, place = shift + 7, place + 1
        if byte < 128:
            return number, place


def _pack(cells: list[Cell]) -> bytes:
    if not cells:
        return b""
    parts = []
    for cell in cells:
        payload = b"" if cell is None else cell.encode("utf-8", "surrogatepass")
        parts.append(_varint(0 if cell is None else len(payload) + 1) + payload)
    return zlib.compress(b"".join(parts), 9)


def _unpack(escapes: bytes, count: int) -> list[Cell]:
    """The cells that :func:`_pack` packed."""
    try:
        data = zlib.decompress(escapes)
        cells: list[Cell] = []
        place = 0
        while place < len(data):
            length, place = _read_varint(data, place)
            if length == 0:
                cells.append(None)
                continue
            end = place + length - 1
            if end > len(data):
                raise ValueError("cut off")
            cells.append(data[place:end].decode("utf-8", "surrogatepass"))
            place = end
    except (zlib.error, IndexError, ValueError) as error:
        raise StreamError("the escaped cells are damaged; get the stream again") from error
    if len(cells) != count:
        raise StreamError(f"there are {len(cells)} escaped cells for {count} places; the stream is of other data")
    return cells
