"""Rows with one column hidden, the values it can take, and their probabilities given the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ancestral.data.cells import from_cells
from ancestral.data.table import CSV, Table
from ancestral.decoding.complete import method_for
from ancestral.errors import DataError, UnsupportedError
from ancestral.heads.base import Finite
from ancestral.order import Order
from ancestral.space import Condition
from ancestral.tokenizers.columns import Columns

if TYPE_CHECKING:
    import pandas

    from ancestral.generator import Generator
    from ancestral.model import Model

Missing = Literal["value", "unknown"]

MOST_VALUES = 1 << 17
"""Most combinations of a column's symbols that are enumerated."""

CELLS = 1 << 18
"""Rows times values that are handled together."""


@dataclass
class Rows:
    """Rows whose target column is hidden.

    Attributes:
        values: int64 ``[n, N]``; entries at unknown sites mean nothing.
        known: bool ``[n, N]``.
        sites: the target's sites.
    """

    values: Tensor
    known: Tensor
    sites: slice


@dataclass
class Values:
    """Values that a column can take.

    Attributes:
        symbols: int64 ``[V, s]``.
        native: the values in the column's own type, ``[V]``.
    """

    symbols: Tensor
    native: pandas.Series


def hide(model: Model, data: Any, column: str, missing: Missing = "value") -> Rows:
    """The rows' values with the target hidden.

    Raises:
        DataError: no such column, a column that is lacking or too many.
    """
    tokenizer = columns_of(model)
    check_column(tokenizer, column)
    if missing not in ("value", "unknown"):
        raise DataError(f"missing={missing!r} is not understood; choose 'value' or 'unknown'")
    table = with_column(tokenizer, table_of(model, data), column)
    values = tokenizer.encode(table)
    known = familiar(tokenizer, values)
    if missing == "unknown":
        known &= tokenizer.known(table)
    sites = tokenizer.columns[column]
    known[:, sites] = False
    return Rows(values, known, sites)


def familiar(tokenizer: Columns, values: Tensor) -> Tensor:
    """Bool ``[n, N]``: the sites of cells that training had, or that its digits reach."""
    known = torch.ones_like(values, dtype=torch.bool)
    sizes = tokenizer.space.site_sizes()
    for sites in tokenizer.columns.values():
        known[:, sites] = (values[:, sites.start] != sizes[sites.start] - 1)[:, None]
    return known


def with_column(tokenizer: Columns, dataset: Table, column: str) -> Table:
    """The table with some valid cells in place of the column, in the training table's type."""
    blank = torch.zeros(1, tokenizer.space.n, dtype=torch.int64)
    cell = tokenizer.decode(blank).cells(column)
    frame = dataset.frame.copy(deep=False)
    frame[column] = column_of(tokenizer, dataset, column, np.repeat(cell, len(dataset)))
    return dataset.with_frame(frame)


def column_of(tokenizer: Columns, dataset: Table, column: str, cells: np.ndarray) -> pandas.Series:
    """A column of these cells, object ``[n]``, for a table that may lack it: in the training table's type, or as a
    csv's strings."""
    return from_cells(cells, CSV if dataset.kind == "csv" else tokenizer.schema[column])


def table_of(model: Model, data: Any) -> Table:
    dataset = model.read(data)
    assert isinstance(dataset, Table)
    return dataset


def columns_of(model: Model) -> Columns:
    if not isinstance(model.tokenizer, Columns):
        raise UnsupportedError(f"{model.name} models {model.tokenizer.modality}; only tables have columns to predict")
    return model.tokenizer


def check_column(tokenizer: Columns, column: str) -> None:
    if column not in tokenizer.columns:
        raise DataError(f"there is no column {column!r}; there are {', '.join(map(repr, tokenizer.columns))}")


def combinations(tokenizer: Columns, column: str) -> int:
    """Combinations of the symbols at a column's sites."""
    return math.prod(tokenizer.space.site_sizes()[tokenizer.columns[column]].tolist())


def enumerate_values(tokenizer: Columns, column: str) -> Values:
    """All values that a column can take, but for missing ones.

    Raises:
        UnsupportedError: there are too many.
    """
    count = combinations(tokenizer, column)
    if count > MOST_VALUES:
        raise UnsupportedError(
            f"column {column!r} has more values than can be enumerated ({count:,} combinations of digits, "
            f"{MOST_VALUES:,} at most); ask for predict or quantiles, or name the values with values="
        )
    sizes = tokenizer.space.site_sizes()[tokenizer.columns[column]].tolist()
    sizes[0] = max(1, sizes[0] - 1)  # the last symbol stands for a cell that is kept elsewhere
    symbols = torch.cartesian_prod(*(torch.arange(size) for size in sizes)).reshape(-1, len(sizes))
    cells = decode_column(tokenizer, column, symbols)
    # Digits that no cell has decode to the nearest cell: every cell counts once.
    present = {cell: None for cell in cells if cell is not None and cell != ""}
    if not present:
        raise DataError(f"column {column!r} has no values but missing ones; choose another target")
    return listed_values(tokenizer, column, list(present))


def listed_values(tokenizer: Columns, column: str, values: Sequence[Any]) -> Values:
    if not len(values):
        raise DataError(f"values= names no value of column {column!r}; name at least one")
    symbols = tokenizer.encode_column(column, list(values))
    return Values(symbols, native_values(tokenizer, column, symbols))


def decode_column(tokenizer: Columns, column: str, symbols: Tensor) -> np.ndarray:
    """Cells, object ``[V]``, of one column's symbols int64 ``[V, s]``."""
    values = torch.zeros(len(symbols), tokenizer.space.n, dtype=torch.int64)
    values[:, tokenizer.columns[column]] = symbols
    return tokenizer.decode(values).cells(column)


def native_values(tokenizer: Columns, column: str, symbols: Tensor) -> pandas.Series:
    """Values in the column's own type, ``[V]``, of its symbols int64 ``[V, s]``."""
    values = torch.zeros(len(symbols), tokenizer.space.n, dtype=torch.int64)
    values[:, tokenizer.columns[column]] = symbols
    table = tokenizer.decode(values)
    one = Table.from_cells({column: table.cells(column)}, {column: tokenizer.schema[column]}, table.kind)
    return one.native()[column] if one.kind in ("csv", "parquet") else one.frame[column]


def groups(rows: Rows, size: int) -> Iterator[tuple[Tensor, Rows]]:
    """Rows of equally many known sites, at most ``size`` together."""
    counts = rows.known.sum(1)
    for count in torch.unique(counts).tolist():
        for index in torch.nonzero(counts == count)[:, 0].split(size):
            yield index, Rows(rows.values[index], rows.known[index], rows.sites)


def order_to(model: Model, rows: Rows) -> Order:
    """Known sites first, then the target's; the others last."""
    base = model.generator.order.scoring().one_by_one().rank
    n = base.shape[-1]
    target = torch.zeros(n, dtype=torch.bool)
    target[rows.sites] = True
    rank = torch.where(target, base - n, base)
    known = rows.known
    if bool((known == known[:1]).all()):
        known = known[0]
    return Order(rank).given(known)


def directly(model: Model, rows: Rows) -> bool:
    """Whether the target can be asked for given the known sites, rather than by Bayes' rule."""
    generator = model.generator
    if generator.any_order:
        return True
    order = generator.order.scoring()
    before = rows.known.clone()
    before[:, rows.sites] = True
    rank = order.rank
    sites = rank[rows.sites]
    return (
        order.sequential
        and method_for(generator, rows.known) == "prefix"
        and method_for(generator, before) == "prefix"
        and bool((sites[1:] > sites[:-1]).all())
    )


@torch.no_grad()
def ask(model: Model, rows: Rows, values: Tensor, digits: int) -> Tensor:
    """Log-probabilities ``[B, K]`` of the target's next digit, given the known sites and its earlier digits.

    Args:
        model: any-order, or with the known sites first.
        rows: B rows with equally many known sites.
        values: int64 ``[B, N]`` with the earlier digits filled in.
        digits: how many digits of the target are known.
    """
    first = int(rows.known[0].sum()) + digits
    return next_site(model.generator, order_to(model, rows), values, first)


@torch.no_grad()
def next_site(
    generator: Generator, order: Order, values: Tensor, count: int, condition: Condition | None = None
) -> Tensor:
    """Log-probabilities float64 ``[B, K]`` of the site that an order has behind its first ``count``.

    Args:
        generator: a built generator.
        order: site by site.
        values: int64 ``[B, N]`` with the first ``count`` sites filled in.
        count: how many sites are known.
        condition: what the model is told, for one item (then for all) or for each.

    Raises:
        UnsupportedError: a head without finitely many categories.
    """
    device = next(generator.parameters()).device
    order, batch = order.to(device), len(values)
    told = (condition or Condition()).map(lambda t: t.to(device).expand(batch, *t.shape[1:]))
    cache = generator.network.start(batch, order, told, values.to(device) if count else None, count)
    features = generator.network.step(cache, None)
    distribution = generator.head(features, order.sets[count])
    if not isinstance(distribution, Finite):
        raise UnsupportedError("this model has no finite probabilities to enumerate; use a recipe with categories")
    return distribution.log_probs()[:, 0].double().cpu()


def chain(model: Model, rows: Rows, symbols: Tensor) -> Tensor:
    """Log-probabilities ``[B, V]`` of the target's values, digit by digit."""
    batch = len(rows.values)
    total = torch.zeros(batch, len(symbols), dtype=torch.float64)
    for digit in range(symbols.shape[1]):
        if digit:
            prefixes, which = torch.unique(symbols[:, :digit], dim=0, return_inverse=True)
        else:
            prefixes, which = symbols[:1, :0], torch.zeros(len(symbols), dtype=torch.int64)
        for start in range(0, len(prefixes), max(1, CELLS // (16 * batch))):
            part = prefixes[start : start + max(1, CELLS // (16 * batch))]
            wide = Rows(
                rows.values.repeat_interleave(len(part), 0), rows.known.repeat_interleave(len(part), 0), rows.sites
            )
            wide.values[:, rows.sites.start : rows.sites.start + digit] = part.repeat(batch, 1)
            log_probs = ask(model, wide, wide.values, digit).reshape(batch, len(part), -1)
            here = torch.nonzero((which >= start) & (which < start + len(part)))[:, 0]
            total[:, here] += log_probs[:, which[here] - start, symbols[here, digit]]
    return total


@torch.no_grad()
def bayes(model: Model, rows: Rows, symbols: Tensor) -> Tensor:
    """Log-probabilities ``[B, V]``, up to a constant per row, of rows completed by each of the target's values."""
    known = rows.known.clone()
    known[:, rows.sites] = True
    if not bool(known.all()):
        raise UnsupportedError(
            f"{model.name} draws its columns in one order only and cannot sum over cells that are not known; "
            "fill them first, or use an any-order recipe such as any-order"
        )
    batch, out = len(rows.values), []
    size = max(1, CELLS // (16 * batch))
    for part in symbols.split(size):
        values = rows.values.repeat_interleave(len(part), 0)
        values[:, rows.sites] = part.repeat(batch, 1)
        out.append(model.generator.log_prob(values.to(model.device)).double().sum(1).cpu().reshape(batch, -1))
    return torch.cat(out, 1)
