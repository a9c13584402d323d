"""Saving never replaces a folder with somebody's files unless told to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ancestral
from ancestral.data import Dataset, Images, Text, write
from ancestral.errors import DataError
from ancestral.recipes.toys import toy


@pytest.mark.parametrize(
    "dataset", [Images.read(np.zeros((2, 3, 3), np.uint8)), Text(["one", "two"])], ids=["images", "text"]
)
def test_folders_with_files_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    full = tmp_path / "photos"
    full.mkdir()
    dataset.save(full)  # an empty folder may be filled
    (full / "mine.doc").write_text("precious")
    for save in (dataset.save, lambda path: write(dataset, path)):
        with pytest.raises(DataError, match=r"photos exists and is not empty; .* overwrite=True"):
            save(full)
    assert (full / "mine.doc").read_text() == "precious"
    dataset.save(full, overwrite=True)
    assert len(list(full.iterdir())) == 2


def test_a_model_replaces_a_model_only(tmp_path: Path) -> None:
    from ancestral.recipes.registry import find

    model = find("any-order")(data="table", width=8, depth=1).build(toy("table", 16))
    model.save(tmp_path / "m")
    model.save(tmp_path / "m")
    assert ancestral.load(tmp_path / "m").parameters == model.parameters
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match="not empty"):
        model.save(tmp_path / "other")
    assert (tmp_path / "other" / "thesis.tex").exists()
    model.save(tmp_path / "other", overwrite=True)
    assert ancestral.load(tmp_path / "other").parameters == model.parameters
