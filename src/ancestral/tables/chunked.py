"""Tables larger than memory: rows sampled to a file, and files scored, chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ancestral.data.base import Dataset
from ancestral.data.table import Table
from ancestral.data.tablefiles import CHUNK, TableFiles
from ancestral.data.writing import check_target, write_tables
from ancestral.errors import DataError, UnsupportedError
from ancestral.scores import LogProb

if TYPE_CHECKING:
    from ancestral.model import Model


def sample_to(model: Model, n: int, out: str | Path, *, chunk: int = CHUNK, first: int = 0, **options: Any) -> Path:
    """Write ``n`` sampled rows to a csv, tsv or parquet file; the rows are those of one call of ``sample``.

    Args:
        model: fitted to a table.
        n: how many rows.
        out: the file.
        chunk: rows drawn and written together.
        first: number of the first row.
        options: as for :meth:`Model.sample`.

    Raises:
        DataError: no rows, another suffix, or a place that cannot be written.
    """
    _only_tables(model)
    if n < 1:
        raise DataError(f"cannot write {n} rows; give n=1 or more")
    target = check_target(out)
    labels = options.pop("label", None)
    if isinstance(labels, (list, tuple, np.ndarray)):
        raise DataError("rows that are written chunk by chunk take one label for all")

    def parts() -> Iterator[Table]:
        for start in range(0, n, chunk):
            size = min(chunk, n - start)
            yield model.sample(size, first=first + start, label=labels, as_dataset=True, **options)

    write_tables(parts(), target)
    return target


def log_prob_chunks(model: Model, data: TableFiles, **options: Any) -> LogProb:
    """:meth:`Model.log_prob` of rows that are read chunk by chunk: 16 bytes a row stay in memory."""
    scores = [model.log_prob(chunk, **options) for chunk in data.chunks()]
    sites = None
    if options.get("per_site"):
        sites = np.concatenate([score.per_site for score in scores if score.per_site is not None])
    scalars = np.concatenate([score.scalars for score in scores])
    return LogProb(np.concatenate([np.asarray(score) for score in scores]), scores[0].kind, scalars, sites)


def score_to(
    model: Model, data: Any, out: str | Path, *, per_column: bool = False, chunk: int = CHUNK, **options: Any
) -> dict[str, Any]:
    """Write every row's log-probability to a csv, tsv or parquet file, with bounded memory.

    Args:
        model: fitted to a table.
        data: rows, in memory or in files.
        out: the file: columns ``row``, ``nats``, and with ``per_column`` one ``nats`` for each column of the table,
            given the columns that the model draws before it.
        per_column: whether to tell the columns apart.
        chunk: rows read and scored together.
        options: as for :meth:`Model.log_prob`.

    Returns:
        ``rows``, ``mean_nats``, ``bits_per_row``, ``bits_per_dim``, ``kind`` and ``out``.

    Raises:
        DataError: data that cannot be used, another suffix, or a place that cannot be written.
    """
    import pandas as pd

    from ancestral.data import read

    _only_tables(model)
    target = check_target(out)
    dataset = data if isinstance(data, Dataset) else read(data, model.tokenizer.modality)
    total, kinds = [0.0], {""}

    def parts() -> Iterator[Table]:
        first = 0
        for part in chunks_of(dataset, chunk):
            scores = model.log_prob(part, per_site=per_column, **options)
            content = {"row": np.arange(first, first + len(part)), "nats": np.asarray(scores)}
            if per_column and scores.per_site is not None:
                for name, sites in model.tokenizer.columns.items():  # type: ignore[attr-defined]
                    content[f"nats of {name}"] = scores.per_site[:, sites].sum(1)
            total.append(float(np.asarray(scores).sum()))
            kinds.add(scores.kind)
            first += len(part)
            yield Table(pd.DataFrame(content))

    rows = write_tables(parts(), target)
    mean = math.fsum(total) / rows
    bits = -mean / math.log(2)
    return {
        "rows": rows,
        "mean_nats": mean,
        "bits_per_row": bits,
        "bits_per_dim": bits / len(model.tokenizer.columns),  # type: ignore[attr-defined]
        "kind": max(kinds),
        "out": target,
    }


def chunks_of(dataset: Dataset, chunk: int = CHUNK) -> Iterator[Table]:
    """The rows of a table, at most so many at once (of files, as many as they were opened for)."""
    if isinstance(dataset, TableFiles):
        yield from dataset.chunks()
        return
    assert isinstance(dataset, Table)
    for start in range(0, len(dataset), chunk):
        yield dataset.take(slice(start, start + chunk))


def _only_tables(model: Model) -> None:
    if model.tokenizer.modality != "table":
        raise UnsupportedError(
            f"{model.name} models {model.tokenizer.modality}; only tables are written chunk by chunk"
        )
