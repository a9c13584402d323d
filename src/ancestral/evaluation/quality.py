"""All that a quality report says about a table's model, gathered once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ancestral.errors import AncestralError, DataError, UnsupportedError
from ancestral.evaluation import tables
from ancestral.evaluation.tables import Pairs, Privacy

if TYPE_CHECKING:
    import pandas as pd

    from ancestral.data.table import Table
    from ancestral.model import Model

_T = TypeVar("_T")


@dataclass
class Quality:
    """What was measured; None where it could not be, and then ``notes`` says why.

    Attributes:
        real, synthetic: the rows compared, cells as words.
        kinds: of the columns, as :func:`ancestral.evaluation.tables.kinds`.
        trained: rows of the training table, 0 if it was not given.
        marginals, floor: distance of every column, and the same between two real tables.
        pairs: all pairs of columns.
        pair_floor: mean distance of the pairs between two real tables.
        auc, auc_real: of the two-sample test, and the same between two real tables.
        target: column that was predicted.
        worth, worth_real: on real rows, after training on synthetic and on as many real ones.
        worth_name: "area under the ROC curve" or "R squared".
        privacy: copies and closest records.
        bits: per column, float64 ``[rows]``.
        score_kind: exact, lower_bound or estimate.
        others: figures of sdmetrics.
        notes: section -> one sentence why it is not there.
        seconds: (what, seconds).
    """

    real: pd.DataFrame
    synthetic: pd.DataFrame
    kinds: dict[str, str]
    trained: int
    marginals: dict[str, float]
    floor: dict[str, float]
    pairs: Pairs
    pair_floor: float
    target: str
    auc: float | None = None
    auc_real: float | None = None
    worth: float | None = None
    worth_real: float | None = None
    worth_name: str = ""
    privacy: Privacy | None = None
    bits: dict[str, np.ndarray] | None = None
    score_kind: str = "exact"
    others: dict[str, float] | None = None
    notes: dict[str, str] = field(default_factory=dict)
    seconds: list[tuple[str, float]] = field(default_factory=list)

    @property
    def row_bits(self) -> float | None:
        """Mean bits of a row."""
        return None if self.bits is None else float(sum(b.mean() for b in self.bits.values()))

    def summary(self) -> dict[str, Any]:
        """The figures as plain JSON content."""
        held = self.privacy
        return {
            "rows": len(self.real),
            "synthetic_rows": len(self.synthetic),
            "two_sample_auc": self.auc,
            "two_sample_auc_of_real_rows": self.auc_real,
            "target": self.target,
            "worth_measure": self.worth_name,
            "train_on_synthetic": self.worth,
            "train_on_real": self.worth_real,
            "bits_per_row": self.row_bits,
            "score_kind": self.score_kind,
            "bits_per_column": None if self.bits is None else {n: float(b.mean()) for n, b in self.bits.items()},
            "marginal_distance": self.marginals,
            "mean_pair_distance": _mean(self.pairs),
            "mean_pair_distance_of_real_rows": self.pair_floor,
            "copies": None if held is None else held.copies,
            "copies_among_real_rows": None if held is None else held.real_copies,
            "closer_to_training": None if held is None else held.closer,
            "sdmetrics": self.others,
            "not_available": self.notes,
        }


def words_of(table: Table) -> pd.DataFrame:
    """The table with every cell as its exact word; missing cells are empty words."""
    import pandas as pd

    return pd.DataFrame({name: [c if c is not None else "" for c in table.cells(name)] for name in table.columns})


def measure(
    model: Model,
    data: Any,
    training: Any = None,
    *,
    target: str | None = None,
    rows: int = 10_000,
    seed: int = 0,
    say: Callable[[str], None] = lambda what: None,
) -> Quality:
    """Compare a model of tables with real rows.

    Args:
        model: fitted on a table.
        data: rows that the model was not trained on (file or DataFrame).
        training: the rows that it was trained on, for privacy and for the worth of real rows.
        target: column for train-on-synthetic; guessed by default.
        rows: at most so many rows of every table are used, chosen at random.
        seed: of the choices, the samples and the classifiers.
        say: told what is done next.

    Raises:
        DataError: no model of tables, other columns, fewer than 20 rows or an unknown target.
    """
    if model.tokenizer.modality != "table":
        raise DataError(f"this model is of {model.tokenizer.modality}; a quality report is for models of tables")
    table: Any = model.read(data)
    if len(table) < 20:
        raise DataError(f"too few rows to compare with ({len(table)}); give at least 20")
    table = table.take(_choose(len(table), rows, seed))
    real = words_of(table)
    known: Any = None if training is None else model.read(training)
    trained = None if known is None else tables.same_columns(real, words_of(known), "the training table")
    if target is not None and target not in real.columns:
        raise DataError(f"there is no column {target!r} to predict; there are {', '.join(map(repr, real.columns))}")
    clock: list[tuple[str, float]] = []

    def timed(what: str, call: Callable[[], _T]) -> _T:
        say(what)
        start = time.perf_counter()
        out = call()
        clock.append((what, time.perf_counter() - start))
        return out

    bits, kind, notes = None, "exact", {}
    try:
        scores = timed("scoring", lambda: model.log_prob(table, per_site=True))
        columns = getattr(model.tokenizer, "columns", None)
        kind = scores.kind
        if scores.per_site is not None and columns is not None:
            bits = tables.bits_per_column(scores, columns)
        else:
            notes["bits"] = f"{model.name} scores rows as a whole, so that no column has a share of its own"
    except UnsupportedError as error:
        notes["bits"] = str(error)
    count = min(max(len(real), 0 if trained is None else len(trained)), rows)
    synthetic = timed("sampling", lambda: words_of(model.sample(count, seed=seed, as_dataset=True)))
    synthetic = tables.same_columns(real, synthetic)
    # Two real tables, for what chance alone does: training and test, or two halves.
    one, two = (trained, real) if trained is not None else _halves(real, seed)
    one, two = tables.cut(one, rows, seed), tables.cut(two, rows, seed)
    pairs, floor = timed("comparing columns and pairs", lambda: (tables.pairs(real, synthetic), tables.pairs(two, one)))
    out = Quality(
        real, synthetic, tables.kinds(real), 0 if trained is None else len(trained),
        tables.marginals(real, synthetic), tables.marginals(two, one), pairs, _mean(floor),
        target or tables.guess_target(real),
        bits=bits, score_kind=kind, notes=notes, seconds=clock,
    )  # fmt: skip
    _classify(out, one, two, seed, timed)
    if trained is None:
        notes["privacy"] = "copies and closest records need the table that the model was trained on: add --training"
    else:
        out.privacy = timed("looking for copies", lambda: tables.privacy(synthetic, trained, real, seed=seed))
    try:
        out.others = timed("figures of sdmetrics", lambda: tables.sdmetrics_scores(real, synthetic))
    except UnsupportedError as error:
        notes["sdmetrics"] = str(error)
    return out


def _classify(out: Quality, one: pd.DataFrame, two: pd.DataFrame, seed: int, timed: Callable[..., Any]) -> None:
    """The two-sample test and train-on-synthetic, each beside the same with real rows."""
    try:
        out.auc = timed("two-sample test", lambda: tables.two_sample_auc(out.real, out.synthetic, seed=seed))
        out.auc_real = timed("the same between real rows", lambda: tables.two_sample_auc(two, one, seed=seed))
    except AncestralError as error:
        out.notes["two-sample"] = str(error)
    try:
        size = min(len(one), len(out.synthetic))
        drawn, owned = tables.cut(out.synthetic, size, seed), tables.cut(one, size, seed)
        out.worth = timed("training on synthetic rows", lambda: tables.usefulness(drawn, two, out.target, seed))
        out.worth_real = timed("training on real rows", lambda: tables.usefulness(owned, two, out.target, seed))
        out.worth_name = "area under the ROC curve" if out.kinds[out.target] == "words" else "R squared"
    except AncestralError as error:
        out.notes["worth"] = str(error)


def _choose(n: int, most: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(n)[:most])


def _halves(frame: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    order = np.random.default_rng(seed).permutation(len(frame))
    middle = len(order) // 2
    return frame.iloc[order[:middle]].reset_index(drop=True), frame.iloc[order[middle:]].reset_index(drop=True)


def _mean(pairs: Pairs) -> float:
    """Mean distance over the pairs of different columns; 0 where there is only one column."""
    lower = np.tril_indices(len(pairs.names), -1)
    return float(pairs.distance[lower].mean()) if len(lower[0]) else 0.0
