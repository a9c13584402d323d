"""Arguments of recipes are checked before anything is built, by their annotations and by what their names mean."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import pytest

from ancestral.errors import DataError
from ancestral.recipes.arguments import check_arguments
from ancestral.recipes.registry import catalogue


@pytest.mark.parametrize("name", catalogue())
def test_the_recipes_own_values_suit_and_no_odd_ones(name: str) -> None:
    record = catalogue()[name]
    defaults = record.config()
    assert record.config(**defaults) == defaults
    assert record.config(**record.tiny)
    for argument, default in defaults.items():
        if isinstance(default, bool) or not isinstance(default, int | float | tuple):
            continue
        for odd in ("x", {}, 1j):
            with pytest.raises(DataError, match=f"^{argument}="):
                record.config(**{argument: odd})
    if "dropout" in defaults:
        with pytest.raises(DataError, match="from 0 to below 1"):
            record.config(dropout=1.5)
    if "width" in defaults:
        with pytest.raises(DataError, match="at least 1"):
            record.config(width=0)


def test_annotations_tell_what_suits() -> None:
    def build(
        size: int = 3,
        rate: float = 0.1,
        sizes: tuple[int, ...] | None = None,
        pair: tuple[float, float] = (0.0, 1.0),
        kind: Literal["a", "b"] = "a",
        flag: bool = True,
        anything: Any = None,
    ) -> None: ...

    defaults = {n: p.default for n, p in inspect.signature(build).parameters.items()}
    good: list[dict[str, Any]] = [
        {"size": 0}, {"rate": 1}, {"sizes": [1, 2]}, {"sizes": None}, {"pair": [0, 2]}, {"kind": "b"},
        {"flag": False}, {"anything": object()},
    ]  # fmt: skip
    for changes in good:
        check_arguments("mine", build, changes, defaults)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"size": 1.5}, "whole number"), ({"size": True}, "whole number"), ({"size": -1}, "negative"),
        ({"rate": None}, "a number"), ({"sizes": [1, "a"]}, "a list such as"), ({"sizes": []}, "empty"),
        ({"pair": [1.0]}, "a list"), ({"kind": "c"}, "one of 'a', 'b'"), ({"flag": 1}, "true or false"),
    ]  # fmt: skip
    for changes, said in bad:
        with pytest.raises(DataError, match=said):
            check_arguments("mine", build, changes, defaults)
