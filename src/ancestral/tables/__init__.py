"""What only tables can be asked: predictions of a column, estimators of scikit-learn's kind, large files."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "SequentialTable": "ancestral.tables.sequential",
    "TableClassifier": "ancestral.tables.estimator",
    "TableModel": "ancestral.tables.estimator",
    "TableRegressor": "ancestral.tables.estimator",
    "anomalies": "ancestral.tables.surprise",
    "between": "ancestral.tables.restrictions",
    "cell_scores": "ancestral.tables.surprise",
    "draw_given": "ancestral.tables.conditioning",
    "impute": "ancestral.tables.rows",
    "predict": "ancestral.tables.prediction",
    "predict_proba": "ancestral.tables.prediction",
    "quantiles": "ancestral.tables.prediction",
    "sample_to": "ancestral.tables.chunked",
    "score_to": "ancestral.tables.chunked",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ancestral.tables' has no attribute {name!r}")


__all__ = [
    "SequentialTable",
    "TableClassifier",
    "TableModel",
    "TableRegressor",
    "anomalies",
    "between",
    "cell_scores",
    "draw_given",
    "impute",
    "predict",
    "predict_proba",
    "quantiles",
    "sample_to",
    "score_to",
]
