"""What a recipe's arguments may be: their annotations, and what no number of their name can be."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Literal

from ancestral.errors import DataError

_SIZES = re.compile(r"(^|_)(width|codes|channels|patch|latents|regions|groups|side|state)$")
"""Names of counts of which there is at least one."""
_WORDS: dict[Any, str] = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "none",
}  # fmt: skip


def check_arguments(recipe: str, build: Callable[..., Any], changes: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Refuse values that a recipe cannot be built with.

    Args:
        recipe: its id.
        build: its function, whose annotations tell the types.
        changes: values that differ from the defaults, by name.
        defaults: of all arguments.

    Raises:
        DataError: a value of another type, a negative count, no size at all, an empty list, or no share of dropout.
    """
    try:
        hints = typing.get_type_hints(build)
    except Exception:  # a recipe from outside may annotate with names that only its author's checker knows
        hints = {}
    for name, value in changes.items():
        hint, default = hints.get(name, Any), defaults[name]
        told = f"{name}={value!r} of recipe {recipe}"
        ours = f"its default is {default!r}"
        if not _suits(value, hint):
            raise DataError(f"{told} is not {_words(hint)}; {ours}")
        whole = type(value) is int
        # Counts: what is positive by default, or left open, is never negative.
        if whole and value < 0 and (default is None or (type(default) is int and default > 0)):
            raise DataError(f"{told} must not be negative; {ours}")
        if whole and value == 0 and type(default) is int and default > 0 and _SIZES.search(name):
            raise DataError(f"{told} must be at least 1; {ours}")
        if isinstance(value, list | tuple) and not value and (default is None or default):
            raise DataError(f"{told} is an empty list; {ours}")
        if name.split("_")[-1] == "dropout" and isinstance(value, int | float) and not 0 <= value < 1:
            raise DataError(f"{told} must be a share from 0 to below 1; {ours}")


def _suits(value: Any, hint: Any) -> bool:
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return any(_suits(value, part) for part in parts)
    if kind is Literal:
        return value in parts
    if kind in (tuple, list):
        # JSON knows lists only.
        if not isinstance(value, list | tuple):
            return False
        if kind is list or parts[-1:] == (Ellipsis,):
            # Words may stand in groups, which the recipes that take them look through themselves.
            return parts[0] is str or all(_suits(item, parts[0]) for item in value)
        return len(value) == len(parts) and all(map(_suits, value, parts))
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    if hint in (str, type(None)):
        return isinstance(value, hint)
    return True


def _words(hint: Any) -> str:
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return " or ".join(map(_words, parts))
    if kind is Literal:
        return "one of " + ", ".join(map(repr, parts))
    if kind in (tuple, list):
        return "a list such as [1, 2, 4]" if int in parts else "a list"
    return _WORDS.get(hint, str(hint))
