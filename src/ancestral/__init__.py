"""ancestral: learn the joint distribution of any data, then sample, score, complete and compress it."""

from __future__ import annotations

from ancestral.version import __version__

__all__ = [
    "Model",
    "Order",
    "Recipe",
    "TableClassifier",
    "TableModel",
    "TableRegressor",
    "__version__",
    "between",
    "fit",
    "load",
    "load_published",
    "recipe",
    "recipes",
]

_HOMES = {
    "Model": "ancestral.model",
    "Order": "ancestral.order",
    "Recipe": "ancestral.recipes.registry",
    "TableClassifier": "ancestral.tables.estimator",
    "TableModel": "ancestral.tables.estimator",
    "TableRegressor": "ancestral.tables.estimator",
    "between": "ancestral.tables.restrictions",
    "fit": "ancestral.api",
    "load": "ancestral.api",
    "load_published": "ancestral.published",
    "recipe": "ancestral.recipes.registry",
}


def __getattr__(name: str) -> object:
    import importlib

    if name == "recipes":
        return importlib.import_module("ancestral.recipes")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ancestral' has no attribute {name!r}")
