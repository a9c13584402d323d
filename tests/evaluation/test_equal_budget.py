"""The benchmark of equal budgets takes recipes from the catalogue and brings each to the common size."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import pytest

from ancestral.recipes.registry import catalogue

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
IMAGES = [r.id for r in catalogue().values() if r.modality in ("image", "any")]


@pytest.fixture(scope="module")
def bench():
    sys.path[:0] = [str(FOLDER / "images"), str(FOLDER)]
    try:
        yield importlib.import_module("equal_budget")
    finally:
        del sys.path[:2]


@pytest.mark.parametrize("name", IMAGES)
def test_every_image_recipe_can_be_built_at_the_common_size(name: str, bench) -> None:
    given = argparse.Namespace(width=96, depth=4, codes=256, channels=32, patch=4)
    record = catalogue()[name]
    sizes = bench.sizes(record, given)
    model = record(**sizes)
    assert bench.takes_images(record) and model.tokenizer.modality == "images"
    assert model.config["width"] <= 96 if isinstance(model.config.get("width"), int) else True
    if "patch" in record.config() and "multipliers" in record.config():
        assert model.tokenizer.backbone.factor == 2 * given.patch


def test_recipes_on_vector_quantised_codes_share_one_tokenizer(bench) -> None:
    given = argparse.Namespace(width=96, depth=4, codes=256, channels=32, patch=4)
    shared = bench.codes(given).state()
    for name in ("llamagen", "arpg", "par"):
        own = catalogue()[name](**bench.sizes(catalogue()[name], given)).tokenizer.state()
        assert all(own[key] == shared[key] for key in ("quantiser", "backbone", "losses")), name
