"""The command that stores a model's weights in fewer bits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ancestral.commands.arguments import MaybeInt, RecipeFile, Saved


def quantise(
    model: Positional[Saved],
    out: Annotated[Path, arg(aliases=["-o"], metavar="MODEL.ancestral")],
    bits: Literal["4", "8"] = "4",
    group: MaybeInt = None,
    tables: Literal["4", "8", "full"] = "8",
    between: bool = False,
    recipe: RecipeFile = None,
    json: bool = False,
) -> None:
    """Store a model's weights in 4 or 8 bits, in a model of its own.

    Args:
        model: a saved model, or the file or folder of a published language model.
        out: folder of the smaller model.
        bits: of the weights of linear maps.
        group: weights that share a scale, 0 for whole rows; by default as few as each matrix needs.
        tables: bits of tables of vectors.
        between: an offset beside every scale, so that the steps reach from the least weight to the largest.
        recipe: the file of the model's recipe, where it is not one of the package's and has moved.
        json: print the sizes as JSON.
    """
    from ancestral.commands import console
    from ancestral.quantisation import stored_bytes

    console.reserve(out, folder=True, overwrite=False, ours="model.json")
    loaded = console.load(model, recipe)
    before = stored_bytes(loaded.generator)
    embeddings = None if tables == "full" else int(tables)
    loaded.quantise(int(bits), group=group, embeddings=embeddings, between=between)
    after = stored_bytes(loaded.generator)
    loaded.save(out)
    if json:
        console.emit({"model": str(out), "bytes_before": before, "bytes": after, "parameters": loaded.parameters})
        return
    console.facts(
        [
            ("weights", f"{loaded.parameters:,}, {console.human(before)} before, {console.human(after)} now"),
            ("saved in", out),
        ]
    )
