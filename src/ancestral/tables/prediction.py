"""One column given the others: probabilities of its values, quantiles and point estimates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ancestral.data.arrow import of_kind
from ancestral.errors import DataError, UnsupportedError
from ancestral.tables.conditionals import (
    CELLS,
    MOST_VALUES,
    Missing,
    Rows,
    ask,
    bayes,
    chain,
    check_column,
    columns_of,
    combinations,
    decode_column,
    directly,
    enumerate_values,
    groups,
    hide,
    listed_values,
    native_values,
    table_of,
)
from ancestral.tokenizers.columns import Columns

if TYPE_CHECKING:
    import pandas

    from ancestral.model import Model

Point = Literal["auto", "mode", "median", "mean"]

NUMERIC = ("integer", "decimal", "float", "date", "datetime")
"""Kinds of columns whose symbols follow the order of the numbers."""

_STRATA = 32  # quantiles that stand for the mean of a column with too many values to enumerate


def predict_proba(
    model: Model,
    data: Any,
    column: str,
    *,
    values: Sequence[Any] | None = None,
    missing: Missing = "value",
    batch_size: int = 256,
) -> pandas.DataFrame:
    """Exact probabilities of a column's values given the other columns of each row.

    An any-order model conditions on the other columns directly; a model of one fixed order is turned round by
    Bayes' rule, which scores every row with every value. Either way the probabilities are those of a cell that is
    present and one of the listed values: missing cells and cells that training never had are left out, and the
    rest sums to one.

    Args:
        model: fitted to a table.
        data: rows with the other columns; the target itself is ignored where it is there.
        column: the target.
        values: only these values; by default all that the column can take.
        missing: a missing cell among the other columns is a "value" like any other, or "unknown" and summed over,
            as cells that training never had always are.
        batch_size: rows handled together.

    Returns:
        DataFrame float64 ``[n, V]``, one column per value, in the order of ``values`` (or that of the column's
        symbols); of polars, or an Arrow table with words for names, if ``data`` is.

    Raises:
        DataError: no such column, or a value that it cannot take.
        UnsupportedError: too many values to enumerate, or cells that a model of one order cannot sum over.
    """
    import pandas as pd

    tokenizer = columns_of(model)
    rows = hide(model, data, column, missing)
    chosen = listed_values(tokenizer, column, values) if values is not None else enumerate_values(tokenizer, column)
    table = torch.zeros(len(rows.values), len(chosen.symbols), dtype=torch.float64)
    for index, group in groups(rows, max(1, min(batch_size, CELLS // max(1, len(chosen.symbols))))):
        if directly(model, group):
            table[index] = chain(model, group, chosen.symbols)
        else:
            table[index] = bayes(model, group, chosen.symbols)
    return of_kind(pd.DataFrame(torch.softmax(table, -1).numpy(), columns=pd.Index(chosen.native)), data)


def predict(
    model: Model,
    data: Any,
    column: str,
    *,
    point: Point = "auto",
    missing: Missing = "value",
    batch_size: int = 256,
) -> pandas.Series:
    """A point estimate of a column given the other columns of each row.

    Args:
        model: fitted to a table.
        data: rows with the other columns; the target itself is ignored where it is there.
        column: the target.
        point: the most probable value ("mode"), the "median", the "mean" (a float; of 32 evenly spaced quantiles
            where the column has too many values to enumerate), or "auto": the median of numbers and dates, the
            mode of everything else.
        missing, batch_size: as for :func:`predict_proba`.

    Returns:
        Series ``[n]``, in the column's own type (float64 for the mean); of polars, or an Arrow array, if ``data`` is.

    Raises:
        DataError: as for :func:`predict_proba`, or a mean of something that is no number.
        UnsupportedError: as for :func:`predict_proba`.
    """
    import pandas as pd

    tokenizer = columns_of(model)
    if point not in ("auto", "mode", "median", "mean"):
        raise DataError(f"point={point!r} is no estimate; choose auto, mode, median or mean")
    check_column(tokenizer, column)
    kind = tokenizer.kinds[column]
    if point == "auto":
        point = "median" if kind in NUMERIC else "mode"
    if point == "median":
        return quantiles(model, data, column, 0.5, missing=missing, batch_size=batch_size)
    if point == "mean":
        return of_kind(_mean(model, data, column, missing, batch_size), data)
    if kind in NUMERIC and combinations(tokenizer, column) > MOST_VALUES:
        raise UnsupportedError(
            f"column {column!r} has too many values to find the most probable; choose point='median' or 'mean'"
        )
    chances = predict_proba(model, table_of(model, data), column, missing=missing, batch_size=batch_size)
    native = pd.Series(chances.columns.array)
    return of_kind(_reset(native.iloc[chances.to_numpy().argmax(1)], column), data)


def quantiles(
    model: Model,
    data: Any,
    column: str,
    q: float | Sequence[float] = 0.5,
    *,
    missing: Missing = "value",
    batch_size: int = 256,
) -> Any:
    """Quantiles of a numeric or date column given the other columns, by descent from coarse digits to fine ones.

    Exact for any number of values: each digit's conditional distribution is asked for once.

    Args:
        model: an any-order model fitted to a table (or one whose order ends with the column).
        data: rows with the other columns.
        column: the target.
        q: one share, or several, in (0, 1).
        missing, batch_size: as for :func:`predict_proba`.

    Returns:
        A Series ``[n]`` for one share, else a DataFrame ``[n, len(q)]`` with the shares as columns.

    Raises:
        DataError: a column that has no order, or a share outside (0, 1).
        UnsupportedError: a model of one fixed order whose other columns do not come first.
    """
    tokenizer = columns_of(model)
    check_column(tokenizer, column)
    kind = tokenizer.kinds[column]
    if kind not in NUMERIC:
        raise DataError(f"column {column!r} is {described(kind)} and has no quantiles; use predict_proba")
    shares = [q] if isinstance(q, (int, float)) else list(q)
    for share in shares:
        if not 0 < share < 1:
            raise DataError(f"q={share} is no quantile; give shares between 0 and 1")
    found = _quantiles(model, data, column, shares, missing, batch_size)
    return of_kind(found.iloc[:, 0].rename(column) if isinstance(q, (int, float)) else found, data)


def _mean(model: Model, data: Any, column: str, missing: Missing, batch_size: int) -> pandas.Series:
    import pandas as pd

    tokenizer = columns_of(model)
    kind = tokenizer.kinds[column]
    refusal = f"column {column!r} is {described(kind)} and has no mean; choose point='median' or 'mode'"
    if kind in ("date", "datetime", "text", "missing"):
        raise DataError(refusal)
    if kind in NUMERIC and combinations(tokenizer, column) > 4096:
        shares = [(i + 0.5) / _STRATA for i in range(_STRATA)]
        many = _quantiles(model, data, column, shares, missing, batch_size * 4, digits=2)
        numbers = many.apply(lambda part: pd.to_numeric(part, errors="coerce")).to_numpy(dtype=float)
        if np.isnan(numbers).all():  # numbers written in a way that is no number to pandas, such as $12.50
            raise DataError(refusal)
        return pd.Series(np.nanmean(numbers, 1), name=column)
    chances = predict_proba(model, table_of(model, data), column, missing=missing, batch_size=batch_size)
    try:
        numbers = pd.to_numeric(pd.Series(chances.columns.array), errors="coerce").to_numpy(dtype=float)
    except TypeError:  # categories of a type that is no number
        raise DataError(refusal) from None
    real = ~np.isnan(numbers)
    if not real.any():
        raise DataError(refusal)
    weight = chances.to_numpy()[:, real]
    return pd.Series(weight @ numbers[real] / weight.sum(1), name=column)


def _ordered(tokenizer: Columns, column: str) -> Tensor:
    """Bool ``[K]``: the first site's symbols that stand for numbers, rather than odd cells or escapes."""
    sites = tokenizer.columns[column]
    size = int(tokenizer.space.site_sizes()[sites.start])
    symbols = torch.zeros(size, sites.stop - sites.start, dtype=torch.int64)
    symbols[:, 0] = torch.arange(size)
    odd = set(getattr(tokenizer._codecs[column], "specials", ()))
    cells = decode_column(tokenizer, column, symbols)
    allowed = [cell not in odd and any(c.isdigit() for c in cell or "") for cell in cells]
    allowed[-1] = False
    if not any(allowed):
        raise DataError(f"column {column!r} has no numbers to choose from; choose another target")
    return torch.tensor(allowed)


def _quantiles(
    model: Model,
    data: Any,
    column: str,
    shares: list[float],
    missing: Missing,
    batch_size: int,
    digits: int | None = None,
) -> pandas.DataFrame:
    """Quantiles ``[n, Q]``, to so many digits (then zeros), by default to the last."""
    import pandas as pd

    tokenizer = columns_of(model)
    rows = hide(model, data, column, missing)
    allowed = _ordered(tokenizer, column)
    count = rows.sites.stop - rows.sites.start
    found = torch.zeros(len(rows.values), len(shares), count, dtype=torch.int64)
    wanted = torch.tensor(shares, dtype=torch.float64)
    for index, group in groups(rows, max(1, batch_size // len(shares))):
        if directly(model, group):
            found[index] = _descend(model, group, wanted, allowed, min(digits or count, count))
        else:
            symbols = enumerate_values(tokenizer, column).symbols
            found[index] = _invert(bayes(model, group, symbols), symbols, wanted, allowed)
    columns = [native_values(tokenizer, column, found[:, j]) for j in range(len(shares))]
    return pd.DataFrame({share: _reset(each, column) for share, each in zip(shares, columns)})


def _descend(model: Model, rows: Rows, shares: Tensor, allowed: Tensor, digits: int) -> Tensor:
    """Symbols ``[B, Q, s]`` of the quantiles, zeros after the first ``digits``."""
    batch, count = len(rows.values), rows.sites.stop - rows.sites.start
    rows = Rows(rows.values.repeat_interleave(len(shares), 0), rows.known.repeat_interleave(len(shares), 0), rows.sites)
    rows.values[:, rows.sites] = 0
    u = shares.repeat(batch)
    for digit in range(digits):
        log_probs = ask(model, rows, rows.values, digit)
        if digit == 0:
            odd = torch.ones(log_probs.shape[-1], dtype=torch.bool)
            odd[: len(allowed)] = ~allowed
            log_probs = log_probs.masked_fill(odd, float("-inf"))
        chance = torch.softmax(log_probs, -1)
        edges = chance.cumsum(-1)
        u = u * edges[:, -1]
        symbol = torch.searchsorted(edges, u[:, None])[:, 0]
        symbol = torch.minimum(symbol, (edges < edges[:, -1:]).sum(-1))
        mass = chance.gather(1, symbol[:, None])[:, 0]
        below = edges.gather(1, symbol[:, None])[:, 0] - mass
        u = ((u - below) / mass.clamp_min(1e-300)).clamp(0, 1)
        rows.values[:, rows.sites.start + digit] = symbol
    return rows.values[:, rows.sites].reshape(batch, len(shares), count)


def _invert(log_probs: Tensor, symbols: Tensor, shares: Tensor, allowed: Tensor) -> Tensor:
    """Symbols ``[B, Q, s]`` of the quantiles of enumerated values, whose symbols ascend with the numbers."""
    rank = symbols[:, 0].clone()
    for digit in range(1, symbols.shape[1]):
        rank = rank * (int(symbols[:, digit].max()) + 1) + symbols[:, digit]
    order = torch.argsort(rank)
    order = order[allowed[symbols[order, 0]]]
    edges = torch.softmax(log_probs[:, order], -1).cumsum(-1)
    wanted = edges[:, -1:] * shares
    place = torch.searchsorted(edges, wanted).clamp_max(len(order) - 1)
    return symbols[order[place]]


def described(kind: str) -> str:
    return {"integer": "an integer", "text": "text", "missing": "empty"}.get(kind, f"a {kind} column")


def _reset(series: Any, name: str) -> Any:
    return series.reset_index(drop=True).rename(name)
