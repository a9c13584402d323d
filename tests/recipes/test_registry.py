"""The catalogue: found by walking, read without importing, one short file per system."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ancestral.recipes
from ancestral.errors import DataError
from ancestral.laws import LAWS
from ancestral.recipes.registry import catalogue, find, read_records
from ancestral.recipes.results import read_results, verdict
from ancestral.recipes.toys import TOYS

FOLDER = Path(ancestral.recipes.__file__).parent
RECORDS = list(catalogue().values())
IDS = [record.id for record in RECORDS]


def test_listing_imports_no_recipe() -> None:
    code = (
        "import sys, ancestral.recipes as r; names = list(r()); assert len(names) >= 9, names; "
        "loaded = [m for m in sys.modules if m.startswith('ancestral.recipes.') and m.count('.') > 2]; "
        "assert not loaded, loaded; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_find_suggests() -> None:
    assert find("gpt").id == "gpt"
    with pytest.raises(DataError, match=r"did you mean .*any-order"):
        find("any-ordr")
    with pytest.raises(DataError, match="ancestral recipes"):
        find("zzzzzzz")


@pytest.mark.parametrize("record", RECORDS, ids=IDS)
def test_record(record) -> None:
    assert record.path.stem == record.id.replace("-", "_").replace(".", "_"), "the file is named after the id"
    assert record.function == record.path.stem, "the function is named after the id"
    assert record.path.read_text(encoding="utf-8").count("\n") <= 140, "a recipe is a short file"
    assert record.title and record.paper and record.authors and record.claim.text and record.summary
    assert record.toy in TOYS
    assert set(record.xfail) <= set(LAWS)
    assert record.differs_from == "" or (record.differs_from in IDS and record.differs_from != record.id)
    record.config(**record.tiny)  # raises for an argument that the function does not have


@pytest.mark.parametrize("record", RECORDS, ids=IDS)
def test_no_recipe_imports_another(record) -> None:
    for node in ast.walk(ast.parse(record.path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "recipes import by full name"
            names = [node.module or ""]
        for name in names:
            allowed = not name.startswith("ancestral.recipes") or name == "ancestral.recipes.registry"
            assert allowed, f"{record.id} imports {name}"


def test_ids_are_unique_and_every_file_has_one() -> None:
    files = [path for path in FOLDER.glob("*/*.py") if not path.name.startswith("_")]
    found = [record.id for path in files for record in read_records(path)]
    assert sorted(found) == sorted(set(found)) == sorted(IDS)
    for path in files:
        count = sum(len(read_records(path, kind=kind)) for kind in ("recipe", "study", "feature_network"))
        assert count == 1, f"{path.name} holds one system"


@pytest.mark.parametrize(
    ("decorator", "message"),
    [
        ("@recipe('x', title='X', claim=Claim('c'))", "has no tiny="),
        ("@recipe('x', title='X', tiny=dict())", "has no claim="),
        ("@recipe('x', tiny=dict(), claim=Claim('c'))", "has no title="),
        ("@recipe('x', title='X', tiny=dict(), claim=Claim('c'), colour='red')", "record of 'x' is wrong"),
        ("@recipe('x', title='X', tiny=dict(width=SIZE), claim=Claim('c'))", "must be literals"),
    ],
)
def test_bad_records_are_refused_in_one_sentence(tmp_path: Path, decorator: str, message: str) -> None:
    file = tmp_path / "outside.py"
    file.write_text(f"{decorator}\ndef x():\n    '''Do.'''\n")
    with pytest.raises(DataError, match=message) as caught:
        find(file)
    assert "\n" not in str(caught.value)


def test_files_without_recipes(tmp_path: Path) -> None:
    empty, broken = tmp_path / "empty.py", tmp_path / "broken.py"
    empty.write_text("x = 1\n")
    broken.write_text("def (:\n")
    with pytest.raises(DataError, match="defines no recipe"):
        find(empty)
    with pytest.raises(DataError, match="not Python"):
        find(broken)
    with pytest.raises(DataError, match="cannot read"):
        find(tmp_path / "absent.py")


def test_unknown_argument() -> None:
    with pytest.raises(DataError, match="recipe gpt has no argument 'widht'; it takes width, "):
        find("gpt")(widht=3)


def test_impossible_argument() -> None:
    with pytest.raises(DataError, match=r"recipe gpt cannot be built .*tokens='words'"):
        find("gpt")(tokens="words")


def test_arguments_of_training_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "outside.py"
    file.write_text(
        "from ancestral.recipes.registry import Claim, recipe\n\n"
        "@recipe('x', title='X', tiny=dict(), claim=Claim('c'))\n"
        "def x(width: int = 3, steps: int = 8):\n    'Do.'\n"
    )
    with pytest.raises(DataError, match="has an argument 'steps', which is an option of training") as caught:
        find(file)()
    assert "\n" not in str(caught.value)


def test_steps_are_those_of_training() -> None:
    import ancestral
    from ancestral.recipes.toys import toy

    tiny = catalogue()["maskgit"].tiny
    model = ancestral.fit(toy("grid", 32), recipe="maskgit", **tiny, steps=2, validation=0, quiet=True)
    assert model.history is not None and model.history.steps == 2
    assert model.config["passes"] == tiny["passes"]


def test_fingerprints_follow_the_code_and_not_the_words(tmp_path: Path) -> None:
    text = (
        '"""About."""\nfrom ancestral.recipes.registry import Claim, recipe\n\n'
        "@recipe('x', title='X', tiny=dict(), claim=Claim('c'))\n"
        "def x(width: int = 3):\n    '''Do.'''\n    return width  # as given\n"
    )

    def printed(text: str) -> str:
        file = tmp_path / "x.py"
        file.write_text(text)
        return find(file).fingerprint

    first = printed(text)
    same = text.replace("About", "Other").replace("title='X'", "title='Y'").replace("Do.", "Did.").replace("as g", "g")
    assert printed(same) == first
    assert len({first, printed(text.replace("= 3", "= 4")), printed(text.replace("return width", "return 1"))}) == 3


def test_a_result_of_an_earlier_version_says_so(tmp_path: Path) -> None:
    import json

    record = catalogue()["nade"]
    for known, words in (
        ({"nade": record.fingerprint}, "reproduced"),
        ({"nade": "0" * 12}, "reproduced (measured on an earlier version)"),
        ({}, "reproduced"),
    ):
        (tmp_path / "nade.json").write_text(json.dumps({"verdict": "reproduced", "recipes": known}))
        assert verdict(record, read_results(tmp_path)) == words
    assert verdict(record, {}) == "not tested"
