"""Estimators that follow scikit-learn's conventions; scikit-learn itself is needed only if it is there anyway."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from ancestral.data.arrow import of_kind, on_rows_of
from ancestral.errors import DataError
from ancestral.tables.bases import (
    BaseEstimator,
    ClassifierMixin,
    DataConversionWarning,
    NotFittedError,
    RegressorMixin,
)

if TYPE_CHECKING:
    import pandas

    from ancestral.model import Model


class InputError(DataError, ValueError):
    """Data that an estimator cannot use: a :class:`DataError` that scikit-learn's tools know as a ValueError."""


class TableModel(BaseEstimator):  # type: ignore[misc, unused-ignore]
    """The joint distribution of a table's columns, as an estimator.

    After ``fit`` any column can be predicted from the others, with or without a ``y`` of its own: ``y`` is one more
    column of the table.

    Args:
        recipe: id of a system; by default the library's for tables.
        target: the column that ``predict`` predicts unless told otherwise, and the name of ``y`` where it has none.
        minutes, steps: budget of training; by default that of :func:`ancestral.fit`.
        validation: share of the rows held out for early stopping.
        options: further arguments of the recipe and of training, as for :func:`ancestral.fit`.
        random_state: a whole number that decides the weights' start, the split and the draws.
        verbose: show the progress bar.

    Attributes:
        model_: the fitted :class:`ancestral.Model`.
        target_: name of the target column, None without.
        n_features_in_: columns of ``X``.
        feature_names_in_: their names, where ``X`` was a frame.
    """

    def __init__(
        self,
        recipe: str | Path | None = None,
        *,
        target: str | None = None,
        minutes: float | None = None,
        steps: int | None = None,
        validation: float = 0.05,
        options: dict[str, Any] | None = None,
        random_state: int = 0,
        verbose: bool = False,
    ) -> None:
        self.recipe = recipe
        self.target = target
        self.minutes = minutes
        self.steps = steps
        self.validation = validation
        self.options = options
        self.random_state = random_state
        self.verbose = verbose

    # -- fitting

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the joint distribution of the columns of ``X``, and of ``y`` as one more column.

        Args:
            X: DataFrame of pandas or polars, Arrow table, array ``[n, columns]``, or (without ``y``) a file.
            y: ``[n]``.

        Raises:
            InputError: data that cannot be used.
        """
        from ancestral import api

        with _as_input_errors():
            self._reset()
            data = self._features(X, fitting=True)
            name = self.target
            if y is not None:
                data, name = self._joined(data, y)
            elif name is not None and name not in data.columns:
                raise InputError(f"target={name!r} is no column of X; name one of {', '.join(data.columns)}, or give y")
            self._own_y, self.target_ = y is not None, name
            options = {"quiet": not self.verbose, **(self.options or {})}
            budget = {"minutes": self.minutes, "steps": self.steps}
            options |= {key: value for key, value in budget.items() if value is not None}
            self.model_: Model = api.fit(
                data,
                recipe=self.recipe,
                modality="table",
                seed=self._seed(self.random_state),
                validation=self.validation,
                **options,
            )
        return self

    def _reset(self) -> None:
        for name in ("model_", "feature_names_in_", "classes_"):
            if hasattr(self, name):
                delattr(self, name)

    # -- the verbs

    def sample(self, n: int = 1, *, given: Any = None, random_state: int | None = None) -> Any:
        """Draw rows, of the kind that the training data were; ``y`` is a column of theirs.

        Args:
            n: how many.
            given: values that some columns shall have.
            random_state: another seed than the estimator's own.
        """
        with _as_input_errors():
            return self._give(self._model().sample(n, given=given, seed=self._seed(random_state), as_dataset=True))

    def score_samples(self, X: Any, y: Any = None) -> np.ndarray:
        """Log-probability of every row, float64 ``[n]`` in nats.

        That of ``X`` and ``y`` together if ``y`` is given (or a column of ``X``); if the estimator was fitted with a
        ``y`` that is not there now, that of ``X`` alone.
        """
        from ancestral.tables.rows import log_prob_without

        with _as_input_errors():
            model, data = self._model(), self._features(X)
            if y is not None:
                data, _ = self._joined(data, y)
            if self._own_y and self.target_ not in data.columns:
                return log_prob_without(model, data, str(self.target_))
            return np.array(model.log_prob(data))

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of :meth:`score_samples`."""
        return float(self.score_samples(X, y).mean())

    def predict(self, X: Any, target: str | None = None, **options: Any) -> np.ndarray:
        """A point estimate of a column given the others, ``[n]``; see :func:`ancestral.tables.predict`.

        Args:
            X: rows; the target itself is ignored where it is there.
            target: by default the estimator's.
            options: ``point=``, ``missing=``, ``batch_size=``.
        """
        with _as_input_errors():
            model, name = self._model(), self._target(target)
            return _array(model.predict(self._features(X, without=name), name, **options))

    def predict_proba(self, X: Any, target: str | None = None, **options: Any) -> Any:
        """Exact probabilities of a column's values given the others.

        Args:
            X: rows; the target itself is ignored where it is there.
            target: by default the estimator's.
            options: ``values=``, ``missing=``, ``batch_size=``.

        Returns:
            DataFrame ``[n, V]`` of the kind of ``X`` (an Arrow table for an Arrow table), its columns the values; a
            plain array for :class:`TableClassifier`.
        """
        return of_kind(self._chances(X, target, **options), X)

    def complete(self, X: Any, *, draws: int = 1, random_state: int | None = None) -> Any:
        """Rows whose missing cells are drawn given the cells that are there; ``n * draws`` of them.

        A ``y`` column that is not there is drawn like any other missing cell.
        """
        from ancestral.tables.rows import fill, whole

        with _as_input_errors():
            model = self._model()
            data = whole(model, self._features(X))
            drawn = model.complete(data, draws=draws, seed=self._seed(random_state), as_dataset=True)
            return on_rows_of(self._give(fill(data, drawn, draws)), X)

    def impute(self, X: Any, method: Literal["point", "draw"] = "point") -> Any:
        """Rows whose missing cells are filled in.

        Args:
            X: rows with gaps.
            method: "point" fills every cell with its own best estimate given the cells that are there (the median of
                numbers and dates, the mode of the rest); "draw" draws the cells of a row together, so that the
                filled rows are distributed as real ones are.
        """
        from ancestral.tables.rows import impute, whole

        if method == "draw":
            return self.complete(X)
        if method != "point":
            raise InputError(f"method={method!r} is no way to impute; choose point or draw")
        with _as_input_errors():
            model = self._model()
            return on_rows_of(self._give(impute(model, whole(model, self._features(X)), as_dataset=True)), X)

    def save(self, path: str | Path) -> None:
        """Write the fitted model, for :func:`ancestral.load`."""
        self._model().save(path)

    # -- helpers

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """The parameters, and the files of the saved model: copies and pickles hold no code of the model's."""
        state = dict(super().__getstate__())
        if "model_" in state:
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place) / "model"
                state["model_"].save(folder)
                state["model_"] = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "model_" in state:
            from ancestral.api import load

            with tempfile.TemporaryDirectory() as place:
                for name, content in state["model_"].items():
                    (Path(place) / name).write_bytes(content)
                state["model_"] = load(place)
        super().__setstate__(state)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def _model(self) -> Model:
        if not hasattr(self, "model_"):
            raise NotFittedError(f"this {type(self).__name__} has not seen any data; call fit(X) first")
        return self.model_

    def _target(self, target: str | None) -> str:
        name = target if target is not None else self.target_
        if name is None:
            raise InputError("no target column was named; give target= here or to the constructor, or fit with y")
        return name

    def _chances(self, X: Any, target: str | None, **options: Any) -> pandas.DataFrame:
        with _as_input_errors():
            model, name = self._model(), self._target(target)
            return model.predict_proba(self._features(X, without=name), name, **options)

    def _seed(self, random_state: Any) -> int:
        state = self.random_state if random_state is None else random_state
        if hasattr(state, "randint"):  # numpy's RandomState
            return int(state.randint(2**31))
        if hasattr(state, "integers"):
            return int(state.integers(2**31))
        return 0 if state is None else int(state)

    def _features(self, X: Any, fitting: bool = False, without: str | None = None) -> Any:
        """The table of ``X``, checked against the one of ``fit``."""
        from ancestral.data.table import Table

        named = isinstance(X, (str, Path, Table)) or hasattr(X, "columns") or hasattr(X, "column_names")
        table = Table.read(X) if named and not isinstance(X, Table) else X
        if not named:
            table = Table.read(_matrix(X))
        count = len(table.columns)
        if fitting:
            self.n_features_in_, self._named = count, named
            if named:
                self.feature_names_in_ = np.array(table.columns, dtype=object)
        elif not named and count != self.n_features_in_ and not (self._own_y and count == self.n_features_in_ + 1):
            raise InputError(
                f"X has {count} features, but {type(self).__name__} is expecting {self.n_features_in_} features as "
                "input"
            )
        return table

    def _joined(self, data: Any, y: Any) -> tuple[Any, str]:
        """The table with ``y`` as its last column, and that column's name."""
        import pandas as pd

        name = getattr(y, "name", None)
        name = str(name) if name is not None else self.target or "target"
        if hasattr(self, "model_") and self.target_ is not None:
            name = self.target_
        if name in data.columns:
            raise InputError(f"X has a column {name!r}, which is the name of y too; drop it or rename one of them")
        values = y.to_numpy() if hasattr(y, "to_numpy") and not isinstance(y, pd.Series) else y
        if not isinstance(values, pd.Series):
            values = np.asarray(values)
            if values.ndim == 2 and values.shape[1] == 1:
                values = values[:, 0]
            if values.ndim != 1:
                raise InputError(f"y has the shape {values.shape}; give one value per row")
            values = pd.Series(values).infer_objects()
        if len(values) != len(data):
            raise InputError(f"X has {len(data)} rows and y has {len(values)} values; give one value per row")
        frame = data.frame.copy(deep=False)
        frame[name] = values.reset_index(drop=True)
        return data.with_frame(frame), name

    def _give(self, dataset: Any) -> Any:
        """Rows in the form of the training data: an array if they were an array of numbers."""
        native = dataset.native()
        return native if self._named else native.to_numpy()


class TableClassifier(ClassifierMixin, TableModel):  # type: ignore[misc, unused-ignore]
    """A classifier that knows the joint distribution of the features and the class.

    It keeps all of :class:`TableModel`: missing features need no imputer, and rows can be sampled of a given class.

    Attributes:
        classes_: the distinct values of ``y``, sorted.
    """

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn features ``X`` and classes ``y`` ``[n]`` together.

        Raises:
            InputError: no ``y``, or one of numbers that are no classes.
        """
        y = _labels(self, y)
        if y.dtype.kind == "f" and not np.array_equal(y, np.round(y)):
            raise InputError("Unknown label type: y holds fractions; a classifier takes classes, use TableRegressor")
        super().fit(X, y)
        self.classes_ = np.unique(np.asarray(y))
        return self

    def predict_proba(self, X: Any, target: str | None = None, **options: Any) -> Any:
        """Probabilities ``[n, classes]`` in the order of ``classes_``; for another target as :class:`TableModel`."""
        if target is not None and target != self._fitted_target():
            return super().predict_proba(X, target, **options)
        self._model()
        return self._chances(X, None, values=list(self.classes_), **options).to_numpy()

    def predict(self, X: Any, target: str | None = None, **options: Any) -> np.ndarray:
        """The most probable class ``[n]``; for another target as :class:`TableModel`."""
        if target is not None and target != self._fitted_target():
            return super().predict(X, target, **options)
        chances = self.predict_proba(X, **options)
        return self.classes_[chances.argmax(1)]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # type: ignore[override]
        """Accuracy."""
        weight = None if sample_weight is None else np.asarray(sample_weight)
        return float(np.average(np.asarray(self.predict(X)) == np.asarray(y), weights=weight))

    def _fitted_target(self) -> str | None:
        self._model()
        return self.target_


class TableRegressor(RegressorMixin, TableModel):  # type: ignore[misc, unused-ignore]
    """A regressor that knows the joint distribution of the features and the number to predict.

    ``predict(X, point="median")`` and :func:`ancestral.tables.quantiles` tell more than the mean.
    """

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn features ``X`` and numbers ``y`` ``[n]`` together."""
        y = _labels(self, y)
        if y.dtype.kind not in "iuf":
            raise InputError(f"Unknown label type: y holds {y.dtype} values; a regressor takes numbers")
        return super().fit(X, y)

    def predict(self, X: Any, target: str | None = None, **options: Any) -> np.ndarray:
        """The conditional mean ``[n]``; for another target, or with ``point=``, as :class:`TableModel`."""
        self._model()
        if target is None or target == self.target_:
            options = {"point": "mean", **options}
        return super().predict(X, target, **options)

    @property
    def predict_proba(self) -> Any:
        """Regressors have none; ``model_.predict_proba(X, column)`` tells the probabilities of any column."""
        raise AttributeError("a TableRegressor has no predict_proba; use model_.predict_proba(X, column)")

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # type: ignore[override]
        """Coefficient of determination."""
        truth = np.asarray(y, dtype=float)
        weight = np.ones(len(truth)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        error = weight * (truth - np.asarray(self.predict(X))) ** 2
        spread = weight * (truth - np.average(truth, weights=weight)) ** 2
        return float(1 - error.sum() / spread.sum())


@contextlib.contextmanager
def _as_input_errors() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(str(error)) from error


def _labels(estimator: TableModel, y: Any) -> pandas.Series:
    """``y`` as a vector, checked."""
    import pandas as pd

    if y is None:
        raise InputError(f"requires y to be passed, but the target y is None; {type(estimator).__name__} predicts it")
    values = np.asarray(y)
    if values.ndim == 2 and values.shape[1] == 1:
        import warnings

        warnings.warn("A column-vector y was passed when a 1d array was expected.", DataConversionWarning, stacklevel=3)
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(f"y has the shape {values.shape}; give one value per row")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InputError(f"Input y contains NaN or infinity, first in row {row}; drop those rows")
    if values.dtype.kind == "c":
        raise InputError("Complex data not supported: y holds complex numbers")
    return pd.Series(values, name=getattr(y, "name", None))


def _matrix(X: Any) -> Any:
    """A frame of anything that is no frame: array, list of rows."""
    import pandas as pd

    if hasattr(X, "tocsr") or hasattr(X, "todense"):
        raise InputError("Sparse data were passed, but dense data are required; use .toarray()")
    try:
        array = np.asarray(X)
    except ValueError as error:
        raise InputError(f"X cannot be read as rows of equally many cells: {error}") from error
    if array.dtype.kind == "c":
        raise InputError("Complex data not supported: X holds complex numbers")
    if array.ndim != 2:
        raise InputError(
            f"Expected 2D array, got an array of shape {array.shape} instead. Reshape your data with "
            "array.reshape(-1, 1) if it is one column or array.reshape(1, -1) if it is one row"
        )
    if not array.shape[1]:
        raise InputError(f"Found array with 0 feature(s) (shape={array.shape}) while a minimum of 1 is required.")
    if not array.shape[0]:
        raise InputError(f"Found array with 0 sample(s) (shape={array.shape}) while a minimum of 1 is required.")
    names = [f"column_{i + 1}" for i in range(array.shape[1])]
    frame = pd.DataFrame(array, columns=names)
    return frame.infer_objects() if array.dtype.kind == "O" else frame


def _array(series: Any) -> np.ndarray:
    values = series.to_numpy()
    return values.astype(object) if values.dtype.kind == "T" else values


__all__ = ["InputError", "TableClassifier", "TableModel", "TableRegressor"]
