"""What ``--given`` says about the columns of a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Any

from ancestral.commands import console
from ancestral.errors import DataError

_ORDERED = ("integer", "decimal", "float", "date", "datetime", "constant")


def conditions(tokenizer: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Conditions by column: ``name=value``, ``name=low..high`` of numbers and dates, ``name in a, b``.

    In a set, values are parted by commas and may stand in double quotes; an empty one (``""``) is a missing cell.

    Args:
        tokenizer: of the model, which knows the columns and their kinds.
        texts: one condition each.

    Raises:
        DataError: a text of another form, or a column given twice.
    """
    from ancestral.tables.restrictions import between

    kinds: dict[str, str] = getattr(tokenizer, "kinds", {})
    found: dict[str, Any] = {}
    for text in texts:
        name, word, rest = text.partition(" in ")
        if word and name.strip() in kinds and "=" not in name:
            name = name.strip()
            value: Any = [part or None for part in next(csv.reader([rest], skipinitialspace=True), [])]
            value = [part.strip() if part else part for part in value]
        else:
            ((name, value),) = console.settings([text], "--given", "sex=Female").items()
            low, dots, high = value.partition("..")
            if dots and kinds.get(name) in _ORDERED:
                if not low.strip() and not high.strip():
                    raise DataError(f"--given {text!r} names no end of the range; write for instance {name}=1..2")
                value = between(low.strip() or None, high.strip() or None)
        if name in found:
            raise DataError(
                f"--given names {name!r} twice; give it once, a set as '{name} in A, B' and a range as {name}=1..2"
            )
        found[name] = value
    return found
