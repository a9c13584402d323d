"""The generators of the site: docstrings to Markdown, signatures, the picture of orders, results."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))

from sitegen.decoders import decoders
from sitegen.docstrings import inline, markdown, signature
from sitegen.images import images
from sitegen.measured import measured_page
from sitegen.pictures import orders_svg, panels
from sitegen.published import published_table
from sitegen.reference import ROOMS, described, public, room_page
from sitegen.systems import lineage

from ancestral.published import systems
from ancestral.recipes.registry import catalogue
from ancestral.training import TrainConfig


def test_a_docstring_keeps_all_its_words_and_gets_its_sections() -> None:
    text = markdown(
        """Draw ``n`` items with :meth:`~a.Model.sample`.

        As in::

            x * y_z

        Args:
            n, m: how many
                of both.
            seed: of *all* draws, in [0, 1).

        Returns:
            uint8 ``[n, N]``.

        Raises:
            DataError: never.
        """
    )
    assert text == (
        "Draw `n` items with `a.Model.sample`.\n\nAs in:\n\n```text\nx * y_z\n```\n\n**Args**\n\n"
        "- `n`, `m`: how many of both.\n- `seed`: of *all* draws, in \\[0, 1).\n\n**Returns**\n\nuint8 `[n, N]`.\n\n"
        "**Raises**\n\n- `DataError`: never."
    )


@pytest.mark.parametrize(
    ("plain", "shown"),
    [("a <b> c", "a &lt;b> c"), ("x_1 * y", r"x\_1 \* y"), ("``a_b`` and `c*d`", "`a_b` and `c*d`")],
)
def test_nothing_outside_code_is_taken_for_markup(plain: str, shown: str) -> None:
    assert inline(plain) == shown


def test_signatures_read_like_source() -> None:
    def example(self, a: int, *, b: str = "x", **rest: float) -> list[int]:
        return []

    assert signature("example", example) == "example(a: int, *, b: str = 'x', **rest: float) -> list[int]"
    assert signature("f", lambda x=example: x) == "f(x=example)"


def test_every_field_that_a_string_describes_is_in_the_reference() -> None:
    names = {name for name, _, _ in described(TrainConfig)}
    assert {"steps", "minutes", "checkpoint", "quiet"} <= names


@pytest.mark.parametrize(("room", "title"), ROOMS)
def test_every_public_name_of_a_room_is_on_its_page(room: str, title: str) -> None:
    from sitegen.reference import modules_of

    page = room_page(room, title)
    for module in modules_of(room):
        for name, _ in public(module):
            assert f"\n### {name}\n" in page
    assert " at 0x" not in page
    assert str(Path(__file__).resolve().parents[2]) not in page


def test_the_picture_shows_every_rank_of_every_order() -> None:
    svg = orders_svg()
    root = ElementTree.fromstring(svg)
    shown = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text") if e.get("class") == "n"]
    expected = [str(rank) for panel in panels() for rank in panel.order.rank.tolist()]
    assert shown == expected
    assert all(sum(h * w for h, w in panel.grids) == panel.order.n for panel in panels())


def test_misses_are_printed_like_hits() -> None:
    page = measured_page({"speed": {"verdict": "not reproduced", "ours": {"a": 1.5}, "peers": {"other": {"a": 2}}}})
    assert "**not reproduced**" in page
    assert "| a | ancestral | 1.5 |" in page
    assert "| a | other | 2 |" in page


def test_decoders_are_compared_as_they_were_measured() -> None:
    assert decoders({}).count("has recorded no result") == 2
    row = {"drafter": "a draft", "refiner": "exact rejection", "calls": 0.5, "cpu_seconds": 1.25, "p_value": 0.31}
    greedy = {"drafter": "a draft", "refiner": "greedy match", "calls": 0.25, "equals_greedy": False}
    result = {
        "verdict": "not reproduced",
        "command": "python b.py",
        "ours": {"bits_per_byte": 2.5, "plain": {"sampling": {"cpu_seconds": 3.0}}, "pairs": {"x": row, "y": greedy}},
    }
    page = decoders({"speculative-survey": result})
    assert "| none | sampling | 1 | 3 | the model's |" in page
    assert "| a draft | exact rejection | 0.5 | 1.25 | the model's (chi-square test: p = 0.31) |" in page
    assert "| a draft | greedy match | 0.25 |  | **not** the greedy texts |" in page
    assert "**not reproduced**" in page and "`python b.py`" in page


def test_images_are_compared_as_they_were_measured() -> None:
    assert images({}).count("has recorded no result") == 5
    draw = {"frechet": 0.5, "precision": 0.9, "recall": 0.25, "class_accuracy": 0.975, "forward_passes_per_image": 16.0}
    row = {"tokens": "VQ codes", "sites": 16, "parameters": 1234, "steps": 7, "rfid": 0.125}
    draws = {"0": draw | {"processor_seconds_per_image": 0.01}, "1.5": draw | {"processor_seconds_per_image": 0.02}}
    near = {**draws["0"], "frechet": 0.1}
    result = {
        "verdict": "reproduced",
        "command": "python b.py",
        "ours": {
            "rows": {
                "a": {"recipe": "a", "draws": draws, **row},
                "b": {"recipe": "b", "draws": {"0": near}, **row},
            },
            "floor_of_real_images": {"frechet": 0.01, "precision": 1, "recall": 1, "judge_accuracy_on_test": 0.98},
        },
        "extra": {"failed": {"c": "it did not fit"}, "pictured": ["a (guidance 0)"]},
    }
    page = images({"equal_budget_mnist": result}, {"mnist": "samples.png"})
    assert "| 0 / 1.5 | 0.5 / 0.5 | 0.975 / 0.975 | 16 / 16 | 0.01 / 0.02 |" in page
    assert "| 0.125 | VQ codes | 16 | 1,234 | 7 |" in page
    assert page.index("[`b`](recipes/b.md)") < page.index("[`a`](recipes/a.md)"), "the better one comes first"
    assert "(samples.png)" in page and "`c` has no row: it did not fit." in page and "**reproduced**" in page


def test_lineage_names_every_system_once() -> None:
    named = re.findall(r"\(recipes/([\w-]+)\.md\)", "\n".join(lineage(list(catalogue().values()))))
    assert sorted(named) == sorted(catalogue())


def test_every_published_system_says_what_was_compared_and_is_tested() -> None:
    table = published_table().split("\n")[2:]
    assert [row.split("`")[1] for row in table] == list(systems())
    tests = Path(__file__).resolve().parents[1] / "published"
    written = "".join(file.read_text() for file in tests.glob("test_*.py"))
    for name, row in zip(systems(), table, strict=True):
        assert row.count(" | ") == 3, row
        assert f'load_published("{name}"' in written, f"no test loads {name}"
