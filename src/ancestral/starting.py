"""Training that begins with an earlier model: its tokenizer, and its weights instead of random ones.

What was learned from much data of one kind helps where there are few of another (Yosinski, Clune, Bengio, Lipson 2014,
arXiv:1411.1792). The tokenizer is the earlier model's, unchanged, so that its sites and values keep their meaning;
new data have to fit into it, as they would to be scored. Classes are matched by name.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ancestral.errors import DataError, UnsupportedError
from ancestral.quantisation.weights import plans

if TYPE_CHECKING:
    from ancestral.model import Model
    from ancestral.recipes.registry import Recipe


def earlier(start: Model | str | Path) -> Model:
    """The model to start from: itself, or as :func:`ancestral.load` reads it.

    Raises:
        DataError: nothing there that could be started from.
        UnsupportedError: a model that has not seen any data.
    """
    from ancestral.api import load
    from ancestral.model import Model

    model = start if isinstance(start, Model) else load(start)
    if not isinstance(model, Model):
        raise DataError(f"training cannot start from a {type(model).__name__}; give a model of single items")
    if plans(model.generator):
        raise DataError(
            "training cannot start from weights that are quantised; give the model as it was before quantise()"
        )
    return model


def recipe_of(start: Model, recipe: str | Path | None) -> Recipe:
    """The recipe of ``start``; ``recipe`` has to be the same, or None.

    Raises:
        DataError: another one.
        UnsupportedError: the model was composed by hand.
    """
    from ancestral.recipes.registry import find

    if start.recipe is None:
        raise UnsupportedError(
            "the model to start from was composed by hand, so that no recipe could build its like; compose it again, "
            "and call its fit(data, start=...)"
        )
    record = start.recipe if recipe is None else find(recipe)
    if record.id != start.recipe.id:
        raise DataError(
            f"the model to start from is of recipe {start.recipe.id}, and its weights fit no {record.id}; leave out "
            "recipe=, or start="
        )
    return record


def adopt(model: Model, start: Model | str | Path, tokenizer: Any = None, tokenizer_training: Any = None) -> Model:
    """Give a model the tokenizer of the one that it starts from, and return the latter.

    Raises:
        DataError: another tokenizer, or options for one, were asked for.
    """
    before = earlier(start)
    if tokenizer is not None or tokenizer_training:
        name = "tokenizer=" if tokenizer is not None else "tokenizer_training="
        raise DataError(f"start= brings a tokenizer of its own, which its weights are made for; leave out {name}")
    model.tokenizer = copy.deepcopy(before.tokenizer)
    return before


def inherit(model: Model, start: Model) -> None:
    """Copy the weights of ``start``.

    Raises:
        DataError: they do not fit; the error says which argument of the recipe, or else which tensor, differs.
    """
    mine, theirs = model.generator.state_dict(), start.generator.state_dict()
    odd = [k for k in {**mine, **theirs} if k not in mine or k not in theirs or mine[k].shape != theirs[k].shape]
    if not odd:
        model.generator.load_state_dict(theirs)
        return
    changed = [k for k, v in model.config.items() if k in start.config and start.config[k] != v]
    if changed:
        why = " and ".join(f"{k}={start.config[k]!r} there, {k}={model.config[k]!r} here" for k in changed)
    else:
        shapes = [str(tuple(each[odd[0]].shape)) if odd[0] in each else "missing" for each in (theirs, mine)]
        why = f"{odd[0]} is {shapes[0]} there, {shapes[1]} here"
    raise DataError(
        f"the weights to start from do not fit this model: {why}; leave out what changes their shapes, or start="
    )
