"""How good a synthetic table is: its columns, its pairs, what a classifier sees, what it is worth, whom it exposes.

Every function takes pandas DataFrames, typed or of words as a csv has them; how a column is read (:func:`kinds`) is
decided on the real rows alone. Those that train a classifier need scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ancestral.errors import DataError, UnsupportedError

if TYPE_CHECKING:
    import pandas as pd

    from ancestral.scores import LogProb

_MOST = 250  # categories that a histogram-based booster keeps apart; rarer ones share a code


# -- reading columns


def kinds(frame: pd.DataFrame) -> dict[str, str]:
    """What every column is taken for: ``number``, ``date`` or ``words``.

    A column whose known cells are all numbers is one, unless they are booleans; dates are ISO 8601.
    """
    return {str(name): _kind(frame[name]) for name in frame.columns}


def _kind(column: pd.Series) -> str:
    import pandas as pd

    if pd.api.types.is_bool_dtype(column.dtype):
        return "words"
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return "date"
    known = column[~_blank(column)]
    if len(known) == 0:
        return "words"
    if pd.to_numeric(known, errors="coerce").notna().all():
        return "number"
    return "date" if pd.to_datetime(known, errors="coerce", format="ISO8601").notna().all() else "words"


def _blank(column: pd.Series) -> pd.Series:
    return column.isna() | (column.astype(str).str.strip() == "")


def numbers(column: pd.Series, kind: str = "number") -> np.ndarray:
    """A column of numbers, or of dates as days since 1970, float64 ``[n]``; NaN where it is missing or is neither."""
    import pandas as pd

    if kind == "date":
        dates = pd.to_datetime(column, errors="coerce", format="ISO8601")
        days = (dates - pd.Timestamp(0)) / pd.Timedelta(days=1)
        return days.to_numpy(np.float64, na_value=np.nan)
    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)


def words(column: pd.Series) -> np.ndarray:
    """A column as words, object ``[n]``; missing cells are empty words."""
    return np.where(_blank(column).to_numpy(), "", column.astype(str).to_numpy(dtype=object))


def same_columns(real: pd.DataFrame, other: pd.DataFrame, what: str = "the synthetic table") -> pd.DataFrame:
    """``other`` with the columns of ``real`` in their order.

    Raises:
        DataError: a column is lacking, or there are no rows.
    """
    lacking = [name for name in real.columns if name not in other.columns]
    if lacking:
        raise DataError(f"{what} has no column {str(lacking[0])!r}, which the real one has; add it")
    if len(other) == 0 or len(real) == 0:
        raise DataError(f"{what if len(other) == 0 else 'the real table'} has no rows to compare; give some")
    return other[list(real.columns)]


class Features:
    """Rows as a matrix for a booster: numbers as they are, words by their rank of frequency in ``frame``.

    Args:
        frame: rows that decide the codes of the words.
        kinds: of the columns.

    Attributes:
        categorical: bool ``[columns]``.
    """

    def __init__(self, frame: pd.DataFrame, kinds: Mapping[str, str]):
        import pandas as pd

        self.kinds = {name: kinds[str(name)] for name in frame.columns}
        self.codes = {
            name: {word: i for i, word in enumerate(pd.Series(words(frame[name])).value_counts().index[:_MOST])}
            for name, kind in self.kinds.items()
            if kind == "words"
        }
        self.categorical = np.array([kind == "words" for kind in self.kinds.values()])

    def __call__(self, frame: pd.DataFrame) -> np.ndarray:
        """float64 ``[n, columns]``; words that have no code of their own share the last one."""
        out = np.empty((len(frame), len(self.kinds)))
        for i, (name, kind) in enumerate(self.kinds.items()):
            if kind == "words":
                out[:, i] = [self.codes[name].get(w, _MOST) for w in words(frame[name])]
            else:
                out[:, i] = numbers(frame[name], kind)
        return out


# -- columns and pairs


def marginals(real: pd.DataFrame, synthetic: pd.DataFrame) -> dict[str, float]:
    """Distance between the two distributions of every column, from 0 to 1.

    For numbers and dates the Kolmogorov-Smirnov statistic of the known cells (sdmetrics' ``1 - KSComplement``), for
    words the total variation distance (``1 - TVComplement``), a missing cell being a word of its own; the larger of
    it and the difference of the missing shares.
    """
    synthetic = same_columns(real, synthetic)
    out = {}
    for name, kind in kinds(real).items():
        if kind == "words":
            out[name] = _variation(words(real[name]), words(synthetic[name]))
            continue
        a, b = numbers(real[name], kind), numbers(synthetic[name], kind)
        gap = abs(float(np.isnan(a).mean() - np.isnan(b).mean()))
        out[name] = max(gap, _smirnov(a[~np.isnan(a)], b[~np.isnan(b)]))
    return out


def _smirnov(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference of two empirical distribution functions; 0 if either is empty."""
    if not len(a) or not len(b):
        return 0.0
    places = np.concatenate([a, b])
    below = np.searchsorted(np.sort(a), places, "right") / len(a) - np.searchsorted(np.sort(b), places, "right") / len(
        b
    )
    return float(np.abs(below).max())


def _variation(a: np.ndarray, b: np.ndarray) -> float:
    """Half the sum of the absolute differences of the shares."""
    _, codes = np.unique(np.concatenate([a, b]).astype(str), return_inverse=True)
    count = int(codes.max()) + 1
    shares = [np.bincount(c, minlength=count) / len(c) for c in (codes[: len(a)], codes[len(a) :])]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


@dataclass(frozen=True)
class Pairs:
    """All pairs of columns, compared.

    Attributes:
        names: of the columns.
        distance: float64 ``[columns, columns]``, total variation between the two joint distributions, numbers in
            cells of the real quantiles and rare words together; the diagonal is the columns' own.
        real, synthetic: ``[columns, columns]``, strength of every dependence: Cramér's V of the same cells.
    """

    names: list[str]
    distance: np.ndarray
    real: np.ndarray
    synthetic: np.ndarray

    def worst(self, count: int) -> list[tuple[str, str, float, float, float]]:
        """(column, column, distance, V of the real, V of the synthetic), the largest distances first."""
        pairs = [(i, j) for i in range(len(self.names)) for j in range(i)]
        pairs.sort(key=lambda p: -self.distance[p])
        return [
            (
                self.names[j],
                self.names[i],
                float(self.distance[i, j]),
                float(self.real[i, j]),
                float(self.synthetic[i, j]),
            )
            for i, j in pairs[:count]
        ]


def pairs(real: pd.DataFrame, synthetic: pd.DataFrame, cells: int = 10) -> Pairs:
    """Compare the joint distribution of every two columns (sdmetrics' ContingencySimilarity is 1 - distance).

    Args:
        real, synthetic: rows of the same columns.
        cells: cells per column: quantiles of the real numbers, or the commonest words; one more for the rest.
    """
    synthetic = same_columns(real, synthetic)
    found = kinds(real)
    coded = [_cells(real[n], synthetic[n], found[str(n)], cells) for n in real.columns]
    size = cells + 2
    n = len(coded)
    distance, strength = np.zeros((n, n)), np.zeros((2, n, n))
    for i in range(n):
        for j in range(i + 1):
            tables = [np.bincount(coded[i][k] * size + coded[j][k], minlength=size * size) for k in (0, 1)]
            joint = [t.reshape(size, size) / t.sum() for t in tables]
            distance[i, j] = distance[j, i] = np.abs(joint[0] - joint[1]).sum() / 2
            for k in (0, 1):
                strength[k, i, j] = strength[k, j, i] = _cramer(joint[k])
    return Pairs([str(c) for c in real.columns], distance, strength[0], strength[1])


def _cells(real: pd.Series, synthetic: pd.Series, kind: str, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Cell of every row, int64 below ``cells + 2``: the last but one for other words, the last for missing."""
    if kind == "words":
        known, counts = np.unique(words(real).astype(str), return_counts=True)
        top = {w: i for i, w in enumerate(known[np.argsort(-counts, kind="stable")][:cells])}
        first, second = ([top.get(str(w), cells) for w in words(c)] for c in (real, synthetic))
        return np.array(first, dtype=np.int64), np.array(second, dtype=np.int64)
    values = numbers(real, kind)
    edges = np.unique(np.nanquantile(values, np.linspace(0, 1, cells + 1)[1:-1]))
    out = []
    for column in (values, numbers(synthetic, kind)):
        place = np.searchsorted(edges, column, "left")
        out.append(np.where(np.isnan(column), cells + 1, place).astype(np.int64))
    return out[0], out[1]


def _cramer(joint: np.ndarray) -> float:
    """Cramér's V of a joint distribution: 0 for independence, 1 for a function of one another."""
    joint = joint[joint.sum(1) > 0][:, joint.sum(0) > 0]
    if min(joint.shape) < 2:
        return 0.0
    expected = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    return float(np.sqrt(((joint - expected) ** 2 / expected).sum() / (min(joint.shape) - 1)))


# -- classifiers


def two_sample_auc(real: pd.DataFrame, synthetic: pd.DataFrame, folds: int = 5, seed: int = 0) -> float:
    """How well gradient boosting tells synthetic rows from real ones: 0.5 is chance, 1 is always.

    Classifier two-sample test (Lopez-Paz and Oquab 2017, arXiv:1610.06545) with the area under the ROC curve of the
    out-of-fold probabilities. The larger table is cut at random to the size of the smaller.

    Args:
        real, synthetic: rows of the same columns; the real ones should not be those that the model saw.
        folds: of the stratified cross-validation.
        seed: of the cut, the folds and the booster.

    Raises:
        DataError: fewer rows than folds.
        UnsupportedError: scikit-learn is not installed.
    """
    _needs_sklearn("the two-sample test")
    import pandas as pd
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    found = kinds(real)
    size = min(len(real), len(synthetic))
    if size < folds:
        raise DataError(f"there are {size} rows for {folds} folds; give at least {folds} real and synthetic rows")
    both = pd.concat([cut(real, size, seed), cut(same_columns(real, synthetic), size, seed + 1)], ignore_index=True)
    features = Features(both, found)
    label = np.repeat([0, 1], size)
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    booster = _booster("words", features.categorical, seed)
    chance = cross_val_predict(booster, features(both), label, cv=parts, method="predict_proba")[:, 1]
    return float(roc_auc_score(label, chance))


def usefulness(train: pd.DataFrame, test: pd.DataFrame, target: str, seed: int = 0) -> float:
    """What a booster that learned on ``train`` is worth on real rows (train on synthetic, test on real).

    Esteban, Hyland, Rätsch 2017, arXiv:1706.02633 (section on evaluation).

    Args:
        train: synthetic rows, or real ones for comparison.
        test: real rows that nobody trained on.
        target: column to predict from the others. Words are classes: the result is the area under the ROC curve,
            averaged over the classes of ``test`` (one against the rest). Numbers: R squared.
        seed: of the booster.

    Raises:
        DataError: no such column, or a target of one value.
        UnsupportedError: scikit-learn is not installed.
    """
    _needs_sklearn("train-on-synthetic")
    from sklearn.metrics import r2_score, roc_auc_score

    if target not in test.columns:
        raise DataError(f"there is no column {target!r} to predict; there are {', '.join(map(repr, test.columns))}")
    train = same_columns(test, train, "the table to train on")
    found = kinds(test)
    others = [c for c in test.columns if c != target]
    features = Features(train[others], found)
    if found[target] != "words":
        learn, truth = numbers(train[target], found[target]), numbers(test[target], found[target])
        keep, seen = ~np.isnan(learn), ~np.isnan(truth)
        booster = _booster("number", features.categorical, seed).fit(features(train[others])[keep], learn[keep])
        return float(r2_score(truth[seen], booster.predict(features(test[others])[seen])))
    learn, truth = words(train[target]).astype(str), words(test[target]).astype(str)
    classes = [c for c in np.unique(truth) if 0 < (truth == c).sum() < len(truth)]
    if not classes:
        raise DataError(f"column {target!r} has one value in the test rows; choose another target")
    if len(np.unique(learn)) < 2:
        return 0.5  # one class in training: nothing can be told apart
    booster = _booster("words", features.categorical, seed).fit(features(train[others]), learn)
    chances = dict(zip(booster.classes_, booster.predict_proba(features(test[others])).T))
    never = np.zeros(len(truth))
    return float(np.mean([roc_auc_score(truth == c, chances.get(c, never)) for c in classes]))


def guess_target(frame: pd.DataFrame) -> str:
    """The column that one would predict: the last of 2 to 20 words, else the last number, else the last."""
    found = kinds(frame)
    few = [n for n, k in found.items() if k == "words" and 2 <= len(np.unique(words(frame[n]).astype(str))) <= 20]
    return (few or [n for n, k in found.items() if k == "number"] or list(found))[-1]


def _booster(kind: str, categorical: np.ndarray, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    booster = HistGradientBoostingClassifier if kind == "words" else HistGradientBoostingRegressor
    return booster(categorical_features=categorical if categorical.any() else None, random_state=seed)


def _needs_sklearn(what: str) -> None:
    import importlib.util

    if importlib.util.find_spec("sklearn") is None:
        raise UnsupportedError(f"{what} needs scikit-learn, which is not installed; pip install 'ancestral[report]'")


def cut(frame: pd.DataFrame, size: int, seed: int = 0) -> pd.DataFrame:
    """At most ``size`` rows, drawn at random without replacement."""
    if len(frame) <= size:
        return frame.reset_index(drop=True)
    chosen = np.random.default_rng(seed).permutation(len(frame))[:size]
    return frame.iloc[np.sort(chosen)].reset_index(drop=True)


# -- privacy


def copy_share(rows: pd.DataFrame, reference: pd.DataFrame) -> float:
    """Share of the rows that stand in ``reference`` as they are, however their numbers are written."""
    rows, found = same_columns(reference, rows), kinds(reference)
    return float(np.mean([r in known for known in [set(_plain(reference, found))] for r in _plain(rows, found)]))


def _plain(frame: pd.DataFrame, found: Mapping[str, str]) -> list[tuple[Any, ...]]:
    columns = []
    for name in frame.columns:
        kind = found[str(name)]
        if kind == "words":
            columns.append(words(frame[name]).tolist())
        else:
            columns.append([None if x != x else x for x in numbers(frame[name], kind).tolist()])
    return list(zip(*columns))


def closest(rows: pd.DataFrame, reference: pd.DataFrame, chunk: int = 128) -> np.ndarray:
    """Distance of every row to the closest one of ``reference``, float32 ``[n]`` from 0 to 1.

    The mean over the columns: numbers and dates by the difference of their ranks among the reference, words 0 or 1
    for equal or not, and 1 where only one of the two is missing (after Gower 1971).
    """
    rows, found = same_columns(reference, rows), kinds(reference)
    here, there, number = [], [], []
    for name in reference.columns:
        kind = found[str(name)]
        number.append(kind != "words")
        if kind == "words":
            known = {w: i for i, w in enumerate(dict.fromkeys(words(reference[name])))}
            there.append(np.array([known[w] for w in words(reference[name])], np.float32))
            here.append(np.array([known.get(w, -1) for w in words(rows[name])], np.float32))
            continue
        place = np.sort(numbers(reference[name], kind))
        place = place[~np.isnan(place)]
        for side, frame in ((here, rows), (there, reference)):
            x = numbers(frame[name], kind)
            rank = (np.searchsorted(place, x, "left") + np.searchsorted(place, x, "right")) / (2 * max(len(place), 1))
            side.append(np.where(np.isnan(x), np.nan, rank).astype(np.float32))
    out = np.empty(len(rows), np.float32)
    for a in range(0, len(rows), chunk):
        total = np.zeros((min(chunk, len(rows) - a), len(reference)), np.float32)
        for x, y, is_number in zip(here, there, number):
            u, v = x[a : a + chunk, None], y[None]
            if is_number:
                apart = np.abs(u - v)
                apart[np.isnan(apart)] = 1
                apart[np.isnan(u) & np.isnan(v)] = 0
                total += apart
            else:
                total += u != v
        out[a : a + chunk] = total.min(1) / len(number)
    return out


@dataclass(frozen=True)
class Privacy:
    """Whether synthetic rows come closer to the training rows than fresh real rows do.

    Attributes:
        copies, real_copies: share of the synthetic (of the held-out) rows that stand in the training table.
        distance, real_distance: to the closest of an equal number of training rows, of the synthetic (held-out)
            rows, float32 arrays.
        closer: share of the synthetic rows that are closer to a training row than to any of as many held-out rows,
            ties counting half: 0.5 where nothing is memorised, 1 where all are copies.
    """

    copies: float
    real_copies: float
    distance: np.ndarray
    real_distance: np.ndarray
    closer: float


def privacy(
    synthetic: pd.DataFrame, training: pd.DataFrame, holdout: pd.DataFrame, most: int = 2000, seed: int = 0
) -> Privacy:
    """Copies and distances to the closest record.

    Args:
        synthetic, training, holdout: rows of the same columns.
        most: synthetic and held-out rows whose distances are taken; references are as many as the smaller of
            training and holdout.
        seed: of the choices.
    """
    size = min(len(training), len(holdout))
    trained, fresh = cut(training, size, seed), cut(holdout, size, seed)
    asked = cut(same_columns(training, synthetic), most, seed)
    near, far = closest(asked, trained), closest(asked, fresh)
    return Privacy(
        copy_share(synthetic, training),
        copy_share(holdout, training),
        near,
        closest(cut(holdout, most, seed), trained),
        float((near < far).mean() + (near == far).mean() / 2),
    )


# -- density, and another package's figures


def bits_per_column(scores: LogProb, columns: Mapping[str, slice]) -> dict[str, np.ndarray]:
    """Bits of every row's cell, float64 ``[n]`` per column; they sum to the bits of the row.

    Args:
        scores: of ``model.log_prob(rows, per_site=True)``.
        columns: name -> its sites, as ``model.tokenizer.columns``.

    Raises:
        DataError: scores without their terms.
    """
    if scores.per_site is None:
        raise DataError("the scores do not say what each site costs; ask for log_prob(..., per_site=True)")
    return {name: -scores.per_site[:, sites].sum(1) / np.log(2) for name, sites in columns.items()}


def sdmetrics_scores(real: pd.DataFrame, synthetic: pd.DataFrame) -> dict[str, float]:
    """Column Shapes, Column Pair Trends and their mean as sdmetrics' QualityReport has them, from 0 to 1.

    Raises:
        UnsupportedError: sdmetrics is not installed.
    """
    try:
        from sdmetrics.reports.single_table import QualityReport
    except ImportError as error:
        raise UnsupportedError("the figures of sdmetrics need it installed; pip install 'ancestral[report]'") from error
    import pandas as pd

    found = kinds(real)
    typed = []
    for frame in (real, same_columns(real, synthetic)):
        content = {n: numbers(frame[n], k) if k != "words" else words(frame[n]) for n, k in found.items()}
        typed.append(pd.DataFrame(content))
    about = {n: {"sdtype": "categorical" if k == "words" else "numerical"} for n, k in found.items()}
    report = QualityReport()
    report.generate(typed[0], typed[1], {"columns": about}, verbose=False)
    shares = report.get_properties().set_index("Property")["Score"]
    return {**{str(k): float(v) for k, v in shares.items()}, "Overall": float(report.get_score())}
