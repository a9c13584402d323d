"""Odd rows, and the cell that makes each odd."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ancestral.data import read
from ancestral.data.base import Dataset
from ancestral.data.table import Table
from ancestral.errors import DataError, UnsupportedError
from ancestral.tables.chunked import chunks_of
from ancestral.tables.conditionals import Rows, ask, columns_of, directly, familiar, groups
from ancestral.tables.prediction import NUMERIC, predict

if TYPE_CHECKING:
    import pandas

    from ancestral.model import Model


def cell_scores(model: Model, data: Any, *, batch_size: int = 2048) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Log-probability of every cell given all other cells of its row, and how surprising that is.

    The surprise of a cell is ``-log p`` less its expectation, the entropy of the distribution that the other cells
    leave: on average 0 in rows of the model's own, whatever the column, so that columns with many values and with few
    can be compared. It is added up over a column's symbols, each given the coarser ones.

    Args:
        model: any-order, fitted to a table.
        data: rows; a cell that training never had counts as one such cell (its spelling does not matter), and is
            summed over where other cells are judged.
        batch_size: rows scored together.

    Returns:
        Two DataFrames float64 ``[n, columns]``: nats (log p), and nats of surprise.

    Raises:
        DataError: the columns are not those of the training table.
        UnsupportedError: a model of one fixed order.
    """
    import pandas as pd

    tokenizer = columns_of(model)
    dataset = model.read(data)
    scores, surprises = {}, {}
    values = tokenizer.encode(dataset)
    shown = familiar(tokenizer, values)
    for name, sites in tokenizer.columns.items():
        known = shown.clone()
        known[:, sites] = False
        total = torch.zeros(len(values), 2, dtype=torch.float64)
        for index, group in groups(Rows(values, known, sites), batch_size):
            if not directly(model, group):
                raise UnsupportedError(
                    f"{model.name} draws its columns in one order only and cannot judge a cell by all others; use an "
                    "any-order recipe such as tabular-argn, or log_prob(..., per_site=True)"
                )
            total[index] = _judge(model, group)
        scores[name], surprises[name] = total[:, 0].numpy(), total[:, 1].numpy()
    return pd.DataFrame(scores), pd.DataFrame(surprises)


def _judge(model: Model, rows: Rows) -> torch.Tensor:
    """Log-probability and surprise of the column's cells, float64 ``[B, 2]``."""
    out = torch.zeros(len(rows.values), 2, dtype=torch.float64)
    for digit, site in enumerate(range(rows.sites.start, rows.sites.stop)):
        log_probs = ask(model, rows, rows.values, digit)
        mine = log_probs.gather(1, rows.values[:, [site]])[:, 0]
        # A digit that no cell has there has probability 0 and adds nothing.
        entropy = -(log_probs.exp() * log_probs.clamp_min(-745)).sum(1)
        out[:, 0] += mine
        out[:, 1] -= mine + entropy
    return out


def anomalies(model: Model, data: Any, n: int = 20, *, batch_size: int = 2048) -> pandas.DataFrame:
    """The n oddest rows, the oddest first, and the cell that makes each odd.

    Args:
        model: any-order, fitted to a table.
        data: rows, in memory or in files, which are read chunk by chunk.
        n: how many rows.
        batch_size: rows scored together.

    Returns:
        DataFrame ``[n]``: ``row`` (number of the row, from 0), ``bits`` (of the whole row: ``-log2 p``), ``column``
        and ``cell`` (the most surprising one, as it is written), ``surprise`` (bits beyond those expected, see
        :func:`cell_scores`), ``probability`` (of the cell given the others) and ``expected`` (the median of numbers
        and dates, the most probable value of everything else).

    Raises:
        DataError: no rows asked for, or columns other than the training table's.
        UnsupportedError: a model of one fixed order.
    """
    import pandas as pd

    tokenizer = columns_of(model)
    if n < 1:
        raise DataError(f"cannot name {n} rows; give n=1 or more")
    dataset = data if isinstance(data, Dataset) else read(data, model.tokenizer.modality)
    best: list[tuple[float, int, dict[str, Any], Table]] = []
    first = 0
    for part in chunks_of(dataset):
        scores, surprises = cell_scores(model, part, batch_size=batch_size)
        odd, which = surprises.to_numpy().max(1), surprises.to_numpy().argmax(1)
        for place in np.argsort(-odd, kind="stable")[:n].tolist():
            name = str(surprises.columns[which[place]])
            found = {
                "row": first + place,
                "column": name,
                "cell": part.cells(name)[place],
                "surprise": odd[place] / math.log(2),
                "probability": math.exp(scores.iloc[place, which[place]]),
            }
            heapq.heappush(best, (float(odd[place]), -(first + place), found, part.take([place])))
            if len(best) > n:
                heapq.heappop(best)
        first += len(part)
    ranked = sorted(best, key=lambda each: (-each[0], -each[1]))
    table = pd.DataFrame([found for _, _, found, _ in ranked])
    rows = ranked[0][3].with_frame(pd.concat([row.frame for *_, row in ranked], ignore_index=True))
    table.insert(1, "bits", -np.asarray(model.log_prob(rows)) / math.log(2))
    expected = np.full(len(table), None, dtype=object)
    for name in dict.fromkeys(table["column"]):
        mine = np.flatnonzero(table["column"] == name)
        kind = tokenizer.kinds[name]
        try:
            guess = predict(model, rows.take(mine), name, point="median" if kind in NUMERIC else "mode")
        except (DataError, UnsupportedError):  # more values than can be enumerated, or none but missing ones
            continue
        expected[mine] = guess.astype(str).to_numpy()
    table["expected"] = expected
    return table
