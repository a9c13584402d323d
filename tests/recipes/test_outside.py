"""Recipes in files of one's own: run once, found again by a saved model, or pointed at."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import ancestral
from ancestral.cli import main
from ancestral.errors import DataError
from ancestral.recipes.registry import find
from ancestral.recipes.toys import toy

TEXT = '''
from pathlib import Path

from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import Symbols

with (Path(__file__).parent / "runs").open("a") as runs:
    runs.write("x")


@recipe("first", title="First", tiny=dict(width=8), toy="tokens", claim=Claim("it works"))
def first(width: int = 8) -> Model:
    """One."""
    return Model(Symbols(3), "raster", CausalTransformer(width, 1, 1), Categorical())


@recipe("second", title="Second", tiny=dict(width=16), toy="tokens", claim=Claim("it works"))
def second(width: int = 16) -> Model:
    """Two."""
    return Model(Symbols(3), "raster", CausalTransformer(width, 2, 1), Categorical())
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(TEXT)
    return path


def test_a_file_runs_once_until_it_changes(file: Path) -> None:
    record = find(file)
    assert record.id == "first" and record.build is record.build and find(file).build is record.build
    assert (file.parent / "runs").read_text() == "x"
    file.write_text(TEXT.replace("width, 1, 1", "width, 3, 1"))
    os.utime(file, ns=(1, 1))
    assert find(file).build is not None and (file.parent / "runs").read_text() == "xx"
    with pytest.raises(DataError, match="no recipe 'third'; it has first, second"):
        find(file, "third")


def test_saved_models_find_their_recipe_or_are_told_where_it_is(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = find(Path("mine.py"), "second")().build(toy("tokens", 16))
    model.save("saved")
    monkeypatch.chdir("/")  # the path that is kept does not depend on where one is
    again = ancestral.load(tmp_path / "saved")
    assert again.name == "second" and again.sample(3) == model.sample(3)
    file.rename(tmp_path / "moved.py")
    with pytest.raises(DataError, match=r"'second' of .*mine\.py, which is not there; .*--recipe"):
        ancestral.load(tmp_path / "saved")
    assert ancestral.load(tmp_path / "saved", tmp_path / "moved.py").name == "second"
    capsys.readouterr()
    arguments = ["sample", str(tmp_path / "saved"), "-n", "2", "--json"]
    assert main(arguments) != 0 and "--recipe" in capsys.readouterr().err
    assert main([*arguments, "--recipe", str(tmp_path / "moved.py")]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 2
    for command in ("complete", "score", "compress", "decompress", "info"):
        assert main([command, "--help"]) == 0 and "--recipe" in capsys.readouterr().out


def test_nothing_in_a_models_folder_runs(file: Path, tmp_path: Path) -> None:
    find(file)().build(toy("tokens", 16)).save(tmp_path / "saved")
    (tmp_path / "saved" / "inside.py").write_text("raise SystemExit('ran')\n" + TEXT)
    place = tmp_path / "saved" / "model.json"
    for named in (str(tmp_path / "saved" / "inside.py"), "mine.py"):
        for field in ("recipe_file", "recipe"):
            content = json.loads(place.read_text()) | {"recipe_file": None, "recipe": "first", field: named}
            place.write_text(json.dumps(content))
            with pytest.raises(DataError, match="which is not there"):
                ancestral.load(tmp_path / "saved")
