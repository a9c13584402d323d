"""Recipes: one short file per published system. Called, the package gives the catalogue: ``ancestral.recipes()``."""

from __future__ import annotations

import sys
from types import ModuleType

from ancestral.recipes.registry import Claim, Recipe, catalogue, find, recipe

__all__ = ["Claim", "Recipe", "catalogue", "find", "recipe"]


class _Catalogue(ModuleType):
    def __call__(self) -> dict[str, Recipe]:
        """All recipes of the package by id."""
        return catalogue()


# The folder and the verb share a name; a callable module serves both.
sys.modules[__name__].__class__ = _Catalogue
