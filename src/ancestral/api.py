"""The verbs' front door: fit, load, recipes."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

from ancestral.data import Dataset, read, sniff
from ancestral.errors import DataError
from ancestral.model import Model
from ancestral.recipes.registry import Recipe, find
from ancestral.tokenizers import Tokenizer

DEFAULTS = {
    "images": "conv-nade",
    "table": "tabular-argn",
    "sequences": "any-order",
    "text": "gpt",
    "bytes": "gpt",
    "audio": "wavenet",
}
"""Recipe that :func:`fit` chooses for each modality."""


def fit(
    data: Any,
    *,
    recipe: str | Path | None = None,
    modality: str | None = None,
    seed: int = 0,
    validation: Any = 0.05,
    tokenizer: Tokenizer | str | Path | None = None,
    tokenizer_training: dict[str, Any] | None = None,
    start: Model | str | Path | None = None,
    **options: Any,
) -> Model:
    """Learn the joint distribution of ``data``.

    Args:
        data: file, folder, array, DataFrame, list of texts ...
        recipe: id of a system (:func:`recipes`), or a Python file with one; by default one that suits the data.
        modality: what the data are, where that is not plain from them.
        seed: determines the weights' start, the split and the order of the items.
        validation: data of its own, or the share of ``data`` held out.
        tokenizer: a tokenizer, the folder of a saved one or of a saved model whose tokenizer is to be reused, or for
            images a name such as "dct" or "vq:codes=64" (:func:`ancestral.tokenizers.named.named`).
        tokenizer_training: training options of a learned tokenizer, by default a share of the model's minutes; see
            :meth:`Model.fit`.
        start: an earlier model or its folder (anything that :func:`load` reads): training goes on from its weights,
            with its recipe, arguments and tokenizer. Arguments that leave the weights' shapes alone, such as
            ``dropout=``, can still be given.
        options: arguments of the recipe (``width=256``), of training (``minutes=10``) and of the reader
            (``size=32``), told apart by name. With ``key=`` and ``time=`` the data are the rows of a sequential
            table: rows of one key in the order of time, and ``context=`` a table with one row per key (the key's
            name there is ``context_key=``, if another).

    Returns:
        A :class:`Model`, or a :class:`ancestral.tables.SequentialTable`.

    Raises:
        DataError: the data or an option cannot be used.
    """
    from ancestral.training import TrainConfig

    if "key" in options:
        if start is not None:
            raise DataError("a sequential table (key=) cannot start from an earlier model; leave start= out")
        return _fit_sequential(data, recipe, seed, validation, options)  # type: ignore[no-any-return]
    record, kind, before = chosen(data, recipe, modality, start)
    build = inspect.signature(record.build).parameters
    train = {f.name for f in fields(TrainConfig)}
    config = {} if before is None else dict(before.config)
    config |= {k: v for k, v in options.items() if k in build}
    if "data" in build and "data" not in config:
        config["data"] = kind
    training = {k: v for k, v in options.items() if k in train}
    reading = {k: v for k, v in options.items() if k not in build and k not in train}
    dataset = read(data, kind, **reading)
    model = record(**config)
    if isinstance(validation, (str, Path)):
        validation = read(validation, kind, **reading)
    return model.fit(
        dataset,
        seed=seed,
        validation=validation,
        tokenizer=tokenizer,
        tokenizer_training=tokenizer_training,
        start=before,
        **training,
    )


def chosen(
    data: Any, recipe: str | Path | None, modality: str | None, start: Model | str | Path | None
) -> tuple[Recipe, str, Model | None]:
    """The recipe that :func:`fit` takes, the modality of the data, and the model to start from; arguments as there."""
    if start is None:
        kind = modality or (data.modality if isinstance(data, Dataset) else sniff(data))
        return find(recipe or DEFAULTS.get(kind, "any-order")), kind, None
    from ancestral.starting import earlier, recipe_of

    before = earlier(start)
    return recipe_of(before, recipe), modality or before.tokenizer.modality, before


def _fit_sequential(rows: Any, recipe: Any, seed: int, validation: Any, options: dict[str, Any]) -> Any:
    from ancestral.tables.sequential import SequentialTable

    if recipe is not None:
        raise DataError("a sequential table (key=) has no recipe= to choose; leave it out")
    if "time" not in options:
        raise DataError("a sequential table needs time=, the column that orders the rows of a key")
    context = options.pop("context", None)
    build = {k: options.pop(k) for k in ("key", "time", "context_key", "width", "depth") if k in options}
    return SequentialTable(**build).fit(rows, context, seed=seed, validation=validation, **options)


def load(path: str | Path, recipe: str | Path | None = None, **options: Any) -> Model:
    """A saved model, or a published language model with its weights.

    Args:
        path: a folder that :meth:`Model.save` wrote (or :meth:`ancestral.tables.SequentialTable.save`); a GGUF file
            (needs the extra ``[gguf]``); a Hugging Face folder (``config.json``, safetensors, ``tokenizer.json``) of
            the Llama family or GPT-2.
        recipe: a Python file with the recipe of a saved model, if it is not one of the package's.
        options: for language models, see :func:`ancestral.pretrained.load_language_model` (``length=``, ``begin=``,
            ``specials=``).

    Raises:
        DataError: nothing there that can be read; pickles (``.bin``, ``.pt``) are refused.
        UnsupportedError: a network that is not one of these.
    """
    from ancestral.pretrained import is_language_model, load_language_model
    from ancestral.tables.sequential import SequentialTable, is_sequential

    if is_language_model(path):
        return load_language_model(path, **options)
    if options:
        raise DataError(f"load has no option {next(iter(options))!r} for a model that ancestral saved")
    if is_sequential(path):
        return SequentialTable.load(path)  # type: ignore[return-value]
    return Model.load(path, recipe)


__all__ = ["DEFAULTS", "fit", "load"]
