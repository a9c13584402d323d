"""What the README and the docs show runs as they stand: Python, command lines, and the recipe of your own.

Only budgets are smaller: ``minutes=`` and ``steps=`` of the examples become a fifth of an epoch.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import ancestral.api
from ancestral import laws
from ancestral.cli import main
from ancestral.recipes.registry import catalogue
from ancestral.tokenizers.learned import Autoencoder

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs" / "pages").rglob("*.md"))]
EPOCHS = 0.2
NOT_RUN = ("quickstart", "check", "serve")
"""Commands with tests of their own, too long for here."""


def blocks(page: str, language: str) -> list[str]:
    """Fenced blocks of a page."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)


def with_code(language: str, mark: str = "") -> list[str]:
    return [page for page in PAGES if any(mark in block for block in blocks(page, language))]


def write_images(folder: Path, images: np.ndarray) -> None:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.astype(np.uint8) * 15).save(folder / f"{i:03d}.png")


def recipe_of_your_own() -> str:
    return next(block for block in blocks("docs/pages/add-a-system.md", "python") if "@recipe(" in block)


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    return pytest.importorskip("sklearn.datasets").load_digits().images.astype(np.uint8)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: np.ndarray) -> Path:
    """A working folder with the files that the examples name, where fitting takes a few steps."""
    fit = ancestral.api.fit

    def brief(data: Any, **options: Any) -> Any:
        budget = [options.pop(name) for name in ("minutes", "epochs") if name in options]
        if not budget:  # beside another budget it is the decoder's steps
            options.pop("steps", None)
        return fit(data, **{**options, "epochs": EPOCHS, "quiet": True})

    train_tokenizer = Autoencoder.fit

    def briefly(tokenizer: Autoencoder, data: Any, **options: Any) -> Any:
        budget = {"steps": 2} if options.pop("minutes", None) else {}
        return train_tokenizer(tokenizer, data, **{**options, **budget, "quiet": True})

    monkeypatch.setattr(ancestral.api, "fit", brief)
    monkeypatch.setattr(Autoencoder, "fit", briefly)
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "photos", digits[:60])
    write_images(tmp_path / "other-photos", digits[60:100])
    write_images(tmp_path / "damaged", digits[110:112])
    for i in range(60):
        (tmp_path / "photos" / f"{i:03d}.txt").write_text(f"the digit {i % 10}")
    write_images(tmp_path / "small", digits[112:114, ::2, ::2])
    write_images(tmp_path / "torn", digits[114:116])
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    np.savez(tmp_path / "test.npz", images=digits[100:110])
    random = np.random.default_rng(0)
    sex = np.where(random.random(80) < 0.5, "Female", "Male")
    people = pd.DataFrame(
        {"sex": sex, "age": random.integers(20, 40, 80), "workclass": random.choice(["Private", "Local-gov"], 80)}
    )
    people.to_csv(tmp_path / "adult.csv", index=False)
    people[::2].to_csv(tmp_path / "test.csv", index=False)
    people[:4].assign(age=[None, 20.0, 21.0, None], workclass=None).to_csv(tmp_path / "gaps.csv", index=False)
    (tmp_path / "novel.txt").write_text("It was a dark and stormy night; the rain fell in torrents. " * 60)
    (tmp_path / "beginning.txt").write_text("It was a")
    (tmp_path / "last_pixel_first.py").write_text(recipe_of_your_own(), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("page", with_code("python"))
def test_python_runs(page: str, desk: Path) -> None:
    names: dict[str, object] = {"__name__": "example"}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), names)


def stand_in(model: str, digits: np.ndarray) -> None:
    """Fit the saved model that a page's command lines begin with but do not make."""
    from ancestral.data import Images

    name = model.removesuffix(".ancestral")
    if name == "digits":
        labels = np.arange(60) % 10
        fitted = ancestral.api.fit(Images.read(digits[:60], labels=labels), recipe="conv-nade", width=8, depth=1)
    elif name == "faces":
        faces = Images.read(digits[:60] * 15, labels=np.arange(60) % 2, classes=("serious", "smiling"), levels=256)
        fitted = ancestral.api.fit(faces, recipe="var", width=16, depth=1, codes=8, channels=8)
    elif name == "adult":
        fitted = ancestral.api.fit("adult.csv", width=16, sums=16)
    else:
        fitted = ancestral.api.fit("novel.txt", width=16, depth=1, heads=2, length=32)
    fitted.save(model)


@pytest.mark.parametrize("page", with_code("text", "ancestral "))
def test_command_lines_run(page: str, desk: Path, digits: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for block in blocks(page, "text") for line in block.splitlines() if line.startswith("ancestral ")]
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        if words[0] in NOT_RUN or "DATA" in words:
            continue
        for word in words:
            if word.endswith(".ancestral") and words[0] != "fit" and not Path(word).exists():
                stand_in(word, digits)
            if word == "test.anc" and words[0] == "decompress" and not Path(word).exists():
                assert main(["compress", words[1], "test.npz", "--out", word]) == 0
        assert main(words) == 0, f"{line}: {capsys.readouterr().err}"
    assert lines


def test_the_recipe_of_your_own_keeps_the_laws(desk: Path) -> None:
    found = laws.check(Path("last_pixel_first.py"))
    assert {r.name for r in found} == set(laws.LAWS)
    broken = [f"{r.name}: {r.detail}" for r in found if r.status not in ("ok", "not applicable")]
    assert not broken
    assert sum(r.status == "ok" for r in found) >= 9


def test_the_readme_begins_with_two_commands_and_three_lines() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.index("make demo") < text.index("make test") < text.index("```python")
    first = [line for line in blocks("README.md", "python")[0].splitlines() if line.strip()]
    assert len(first) == 3
    # The recipe is shown twice, and must not come apart.
    assert (
        recipe_of_your_own().splitlines()[:12]
        == next(block for block in blocks("README.md", "python") if "@recipe(" in block).splitlines()[:12]
    )


@pytest.fixture(scope="module")
def build() -> Any:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import build

        return build
    finally:
        sys.path.remove(str(ROOT / "docs"))


@pytest.fixture(scope="module")
def pages(build: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "pages"
    build.generate(folder)
    return folder


def test_every_recipe_has_a_page_in_the_catalogue_and_the_bibliography(pages: Path) -> None:
    listed = (pages / "catalogue.md").read_text(encoding="utf-8")
    papers = (pages / "bibliography.md").read_text(encoding="utf-8")
    for record in catalogue().values():
        page = (pages / "recipes" / f"{record.id}.md").read_text(encoding="utf-8")
        assert f"(recipes/{record.id}.md)" in listed
        assert f"(recipes/{record.id}.md)" in papers
        for name in record.config():
            assert f"| `{name}` |" in page


@pytest.mark.parametrize("name", catalogue())
def test_the_example_of_every_recipe_runs(name: str, build: Any, desk: Path) -> None:
    from sitegen.systems import example

    exec(compile(example(catalogue()[name]), name, "exec"), {"__name__": "example"})


def test_links_between_pages_lead_somewhere(pages: Path) -> None:
    for page in pages.rglob("*.md"):
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        assert "<!-- generated" not in text, f"{page.name} asks for something that nothing generates"
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(pages)} links to {target}"
