"""scikit-learn's base classes where it is installed, and the part of them that estimators need where it is not."""

from __future__ import annotations

import inspect
from typing import Any, Self

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import DataConversionWarning, NotFittedError
except ImportError:

    class BaseEstimator:  # type: ignore[no-redef]
        """The part of scikit-learn's base class that needs no scikit-learn: parameters by name."""

        @classmethod
        def _names(cls) -> list[str]:
            return sorted(p for p in inspect.signature(cls.__init__).parameters if p != "self")

        def get_params(self, deep: bool = True) -> dict[str, Any]:
            """The constructor's arguments by name."""
            return {name: getattr(self, name) for name in self._names()}

        def __getstate__(self) -> dict[str, Any]:
            return dict(self.__dict__)

        def __setstate__(self, state: dict[str, Any]) -> None:
            self.__dict__.update(state)

        def set_params(self, **params: Any) -> Self:
            """Change some of the constructor's arguments."""
            for name, value in params.items():
                if name not in self._names():
                    raise ValueError(f"{type(self).__name__} has no parameter {name!r}; it has {self._names()}")
                setattr(self, name, value)
            return self

    class ClassifierMixin:  # type: ignore[no-redef]
        """Scores by accuracy."""

        def score(self, X: Any, y: Any) -> float:
            """Share of the rows whose class is predicted."""
            return float((np.asarray(self.predict(X)) == np.asarray(y)).mean())  # type: ignore[attr-defined]

    class RegressorMixin:  # type: ignore[no-redef]
        """Scores by the coefficient of determination."""

        def score(self, X: Any, y: Any) -> float:
            """1 - squared error / variance."""
            truth = np.asarray(y, dtype=float)
            error = truth - np.asarray(self.predict(X))  # type: ignore[attr-defined]
            return float(1 - (error**2).sum() / ((truth - truth.mean()) ** 2).sum())

    class NotFittedError(ValueError, AttributeError):  # type: ignore[no-redef]
        """The estimator has not seen any data."""

    DataConversionWarning = UserWarning  # type: ignore[misc, assignment]

__all__ = ["BaseEstimator", "ClassifierMixin", "DataConversionWarning", "NotFittedError", "RegressorMixin"]
