"""Columns that hold another type than the model knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ancestral.errors import DataError

_NUMBERS = ("integer", "decimal", "float")
_DATES = ("date", "datetime")


def refuse_another_type(name: str, kind: str, example: str, cells: Sequence[str | None], strange: np.ndarray) -> None:
    """Refuse a column none of whose cells could stand in the training table's column.

    Single odd cells are values like others; a column of words where the model knows numbers is a mistake.

    Args:
        name: of the column.
        kind: what the model takes it for.
        example: a cell that the model knows.
        cells: the column's cells.
        strange: bool ``[n]``, the cells that the model does not know.

    Raises:
        DataError: every present cell is strange and of another type.
    """
    present = [(row, cell) for row, cell in enumerate(cells) if cell is not None and cell != ""]
    if not present or not all(strange[row] for row, _ in present):
        return
    is_alien: Callable[[str], bool]
    if kind in _NUMBERS:
        is_alien = _is_word
    elif kind in _DATES:
        is_alien = _is_no_date
    elif kind in ("boolean", "categorical") and not _is_number(example):
        is_alien = _is_number
    else:
        return
    if all(is_alien(cell) for _, cell in present):
        row, cell = present[0]
        raise DataError(
            f"column {name!r} holds {cell!r} in row {row} where the model knows {kind} values such as {example}; "
            "convert the column to the type that it had in training"
        )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_word(cell: str) -> bool:
    return not any(c.isdigit() for c in cell)


def _is_no_date(cell: str) -> bool:
    return _is_word(cell) or _is_number(cell)
