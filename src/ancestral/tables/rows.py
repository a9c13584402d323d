"""Whole rows: their probability without a column, and their gaps filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ancestral.data.table import Table
from ancestral.order import Order
from ancestral.tables.conditionals import (
    CELLS,
    bayes,
    column_of,
    columns_of,
    enumerate_values,
    groups,
    hide,
    table_of,
    with_column,
)
from ancestral.tables.prediction import predict

if TYPE_CHECKING:
    import pandas

    from ancestral.model import Model


def log_prob_without(model: Model, data: Any, column: str) -> np.ndarray:
    """Log-probability of rows but for one column, which is summed over: float64 ``[n]`` nats.

    Args:
        model: fitted to a table.
        data: rows without the column (or with it: it is ignored).
        column: to sum over.
    """
    tokenizer = columns_of(model)
    table = with_column(tokenizer, table_of(model, data), column)
    generator = model.generator
    base = generator.order.scoring().one_by_one().rank
    last = base.clone()
    last[tokenizer.columns[column]] += len(base)
    if generator.any_order or bool((torch.argsort(last) == torch.argsort(base)).all()):
        # What the column's cell is does not matter to the columns before it.
        terms = model.log_prob(table, order=Order(last), per_site=True).per_site
        assert terms is not None
        terms[:, tokenizer.columns[column]] = 0.0
        return terms.sum(1)
    rows = hide(model, table, column)
    rows.known[:] = True
    rows.known[:, rows.sites] = False
    symbols = enumerate_values(tokenizer, column).symbols
    parts = [bayes(model, group, symbols) for _, group in groups(rows, max(1, CELLS // len(symbols)))]
    return torch.logsumexp(torch.cat(parts), 1).numpy()


def whole(model: Model, data: Any) -> Table:
    """The table with the columns that it lacks added, all their cells missing."""
    tokenizer, table = columns_of(model), table_of(model, data)
    frame = table.frame.copy(deep=False)
    for name in tokenizer.columns:
        if name not in frame:
            frame[name] = column_of(tokenizer, table, name, np.full(len(table), None, dtype=object))
    return table.with_frame(frame)


def impute(model: Model, data: Any, *, batch_size: int = 256, as_dataset: bool = False) -> Any:
    """The rows with every missing cell filled by its own best estimate given the cells that are there.

    The median of numbers and dates, the most probable value of everything else; ``model.complete`` draws instead.

    Args:
        model: fitted to a table.
        data: rows with gaps.
        batch_size: rows asked for together.
        as_dataset: return a :class:`Table` rather than the form that the data had.

    Raises:
        DataError: the columns are not those of the training table.
        UnsupportedError: several gaps in a row, and a model of one order only.
    """
    table, tokenizer = table_of(model, data), columns_of(model)
    tokenizer.known(table)  # refuses other columns
    frame = table.frame.copy()
    for name in tokenizer.columns:
        gaps = gaps_of(table, name)
        if gaps.any() and tokenizer.kinds[name] != "missing":
            found = predict(model, table.take(gaps), name, missing="unknown", batch_size=batch_size)
            frame[name] = _filled(frame[name], gaps, found, table.kind)
    filled = table.with_frame(frame)
    return filled if as_dataset else filled.completed(data)


def fill(table: Table, drawn: Table, draws: int = 1) -> Table:
    """The table with its gaps filled from completed rows; all else stays as it is, types included.

    Args:
        table: n rows with gaps.
        drawn: ``n * draws`` completed rows, those of one row next to each other.
        draws: completions of each row.
    """
    index = np.repeat(np.arange(len(table)), draws)
    frame = table.frame.iloc[index].reset_index(drop=True)
    for name in table.columns:
        gaps = gaps_of(table, name)[index]
        if gaps.any():
            frame[name] = _filled(frame[name], gaps, drawn.frame[name][gaps], table.kind)
    return table.with_frame(frame)


def gaps_of(table: Table, name: str) -> np.ndarray:
    """Bool ``[n]``: the cells of a column that are missing or empty."""
    return np.array([cell is None or cell == "" for cell in table.cells(name)], dtype=bool)


def _filled(column: pandas.Series, gaps: np.ndarray, found: pandas.Series, kind: str) -> pandas.Series:
    """The column with other cells in its gaps, in its own type wherever that can hold them."""
    import pandas as pd

    if kind == "csv":
        found = found.astype(str).where(found.notna(), "")
    elif found.dtype != column.dtype:
        if column.isna().all() or (pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_numeric_dtype(found)):
            column = column.astype(found.dtype if found.dtype.kind not in "iub" else object)
        else:
            found = found.astype(column.dtype)
    column = column.copy()
    column.iloc[np.flatnonzero(gaps)] = found.array
    return column
