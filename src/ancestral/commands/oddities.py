"""The command that names odd rows: anomalies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ancestral.commands.arguments import Data, RecipeFile, Saved, Settings


def anomalies(
    model: Positional[Saved],
    data: Positional[Data],
    n: Annotated[int, arg(aliases=["-n"])] = 20,
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="ODD.csv", help_behavior_hint="(optional)")] = None,
    set_: Settings = (),
    recipe: RecipeFile = None,
    json: bool = False,
) -> None:
    """Name the oddest rows of a table, and the cell that makes each odd.

    Args:
        model: a saved model of tables.
        data: rows to judge; large files are read chunk by chunk.
        n: how many rows to name.
        out: write them to this csv or parquet file; by default they are printed.
        set_: an option of the reader (separator=;).
        recipe: the file of the model's recipe, where it is not one of the package's and has moved.
        json: print them as JSON.
    """
    from ancestral.commands import console
    from ancestral.data.table import Table
    from ancestral.data.writing import check_target
    from ancestral.tables import anomalies as find

    if out is not None:
        check_target(out)
        console.reserve(out, folder=False)
    loaded = console.load(model, recipe)
    found = find(loaded, console.read_for(loaded, data, set_, whole=False), n)
    if out is not None:
        Table(found).save(out)
    if json:
        console.emit({"rows": found.to_dict("records"), "out": out})
        return
    if out is not None:
        console.stdout().print(f"{len(found)} rows in {out}", markup=False)
        return
    for each in found.itertuples():
        told = "" if each.expected is None else f"; expected {each.expected}"
        cell = "an empty cell" if each.cell in (None, "") else repr(each.cell)
        more = f"{each.surprise:.1f} bits of surprise{told}"
        chance = f"{each.probability:.1%}" if each.probability >= 0.001 else f"{each.probability:.1e}"
        console.stdout().print(f"row {each.row}: {each.column} is {cell} (probability {chance}, {more})", markup=False)
