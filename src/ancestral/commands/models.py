"""Commands about models and recipes: fit, info, recipes, check, quickstart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from ancestral.commands.arguments import (
    Data,
    MaybeInt,
    MaybePath,
    MaybeText,
    MaybeTokenizer,
    RecipeFile,
    Saved,
    Settings,
)


def fit(
    data: Positional[Data],
    recipe: Annotated[str | None, arg(aliases=["-r"], metavar="ID", help_behavior_hint="(optional)")] = None,
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="MODEL.ancestral", help_behavior_hint="(optional)")] = None,
    minutes: Annotated[float | None, arg(aliases=["-m"], metavar="FLOAT", help_behavior_hint="(optional)")] = None,
    steps: MaybeInt = None,
    modality: Literal["auto", "images", "text", "bytes", "table", "sequences", "audio"] = "auto",
    validation: Annotated[str, arg(metavar="SHARE|PATH")] = "0.05",
    tokenizer: MaybeTokenizer = None,
    start: MaybePath = None,
    set_: Settings = (),
    seed: int = 0,
    checkpoint: MaybePath = None,
    quiet: bool = False,
    json: bool = False,
) -> int:
    """Learn the joint distribution of your data and save it as a model.

    Args:
        data: a folder of images, a .npz or .npy array, a csv or parquet table, text files, .jsonl sequences,
            or .wav files.
        recipe: the system to train, or a .py file with one; `ancestral recipes` lists them. By default one
            that suits the data.
        out: folder of the model; by default DATA's name with .ancestral, in this folder.
        minutes: training time; by default the recipe's own budget, or 10 unless steps or epochs are given.
        steps: number of training steps instead of, or beside, minutes.
        modality: what the data are, where that is not plain from the files.
        validation: share of the data held out for early stopping, or a file or folder of its own; 0 for none.
        tokenizer: a saved tokenizer, or a saved model, whose tokenizer is to be used as it is; or for images the name
            of another than the recipe's: pixels, dct, wavelet-planes, jpeg-bytes, or a learned one such as fsq, vq+vq
            or vq:codes=64.
        start: a saved model whose weights training goes on from; its recipe, arguments and tokenizer are taken.
        set_: an argument of the recipe (width=256), of training (lr=1e-3, batch_size=64, epochs=5) or of the
            reader (size=32; reader.channels=1 where the recipe has channels, too).
        seed: the same seed gives the same model.
        checkpoint: folder of checkpoints; the same command goes on from the newest.
        quiet: no progress bar.
        json: print the summary as JSON.
    """
    import inspect
    import math
    from dataclasses import MISSING, fields

    from ancestral import api
    from ancestral.commands import console
    from ancestral.data import read
    from ancestral.training import TrainConfig

    target = out or Path(data.resolve().name.split(".")[0] + ".ancestral")
    record, kind, before = api.chosen(data, recipe, None if modality == "auto" else modality, start)
    groups = {
        f"of recipe {record.id}": {n: p.default for n, p in inspect.signature(record.build).parameters.items()},
        "of training": {f.name: None if f.default is MISSING else f.default for f in fields(TrainConfig)},
    }
    training, reading = console.choose_apart(set_, groups, kind)
    for name, value in {"minutes": minutes, "steps": steps, "checkpoint": checkpoint, "quiet": quiet}.items():
        if value is not None and value is not False:
            training[name] = value
    console.reserve(target, folder=True, overwrite=False, ours="model.json")
    dataset = read(data, kind, **reading)
    share = console.literal(validation)
    held: Any = share if isinstance(share, (int, float)) else read(Path(validation), kind, **reading)
    model = api.fit(
        dataset, recipe=recipe, modality=kind, seed=seed, validation=held, tokenizer=tokenizer, start=before, **training
    )
    model.save(target)
    history = model.history
    assert history is not None
    best = None if history.best_loss is None else history.best_loss / math.log(2)
    summary = {
        "model": str(target),
        "recipe": record.id,
        "data": f"{data} ({console.counted(dataset)})",
        "parameters": model.parameters,
        "steps": history.steps,
        "seconds": round(history.seconds, 1),
        "stopped": history.stopped,
        "validation_bits": best,
    }
    if json:
        console.emit(summary)
        return 130 if history.interrupted else 0
    rows = [
        ("learned from", summary["data"]),
        ("recipe", f"{record.id}, {model.parameters:,} parameters"),
        ("training", console.ending(history)),
    ]
    if best is not None:
        rows.append(("validation", f"{best:.4f} bits per value"))
    console.facts([*rows, ("saved in", target)])
    console.stdout().print(f"\nnext:  ancestral sample {target}\n       ancestral info {target}")
    return 130 if history.interrupted else 0


def info(model: Positional[Saved], recipe: RecipeFile = None, json: bool = False) -> None:
    """Describe a saved model: recipe, sites, classes, size, what it can do.

    Args:
        model: a saved model.
        recipe: the file of the model's recipe, where it is not one of the package's and has moved.
        json: print everything, the recipe's arguments included, as JSON.
    """
    from ancestral.commands import console

    loaded = console.load(model, recipe)
    assert loaded.recipe is not None
    record, space = loaded.recipe, loaded.space
    content = {
        "model": str(model),
        "recipe": record.id,
        "title": record.title,
        "paper": record.paper,
        "modality": loaded.tokenizer.modality,
        "sites": space.n,
        "shape": space.shape,
        "values": space.largest,
        "classes": list(loaded.tokenizer.classes),
        "any_order": loaded.generator.any_order,
        "verbs": loaded.verbs(),
        "parameters": loaded.parameters,
        "bytes": console.bytes_of(model),
        "config": loaded.config,
    }
    columns = getattr(loaded.tokenizer, "columns", None)
    if columns is not None:
        content["columns"] = list(columns)
    if json:
        console.emit(content)
        return
    shape = f" ({' x '.join(map(str, space.shape))})" if len(space.shape) > 1 else ""
    values = f"{space.largest} values each" if space.discrete else "real values"
    rows = [
        ("recipe", f"{record.id}: {record.title}" + (f" ({record.paper})" if record.paper else "")),
        ("data", loaded.tokenizer.modality),
        ("sites", f"{space.n}{shape}, {values}"),
        ("order", "any: every part can be given" if content["any_order"] else "fixed"),
        ("can do", ", ".join({"log_prob": "score"}.get(v, v) for v in loaded.verbs())),
        ("size", f"{loaded.parameters:,} parameters, {console.human(console.bytes_of(model))}"),
        ("arguments", ", ".join(f"{k}={v}" for k, v in loaded.config.items())),
    ]
    if loaded.tokenizer.classes:
        rows.insert(3, ("classes", ", ".join(loaded.tokenizer.classes)))
    if columns is not None:
        rows.insert(3, ("columns", ", ".join(columns)))
    console.facts(rows)


def recipes(
    id: Annotated[Positional[str], arg(metavar="[ID]")] = "",
    modality: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(optional)")] = None,
    search: MaybeText = None,
    json: bool = False,
) -> None:
    """List the systems that can be trained, or describe one of them.

    Args:
        id: describe this recipe, or the one in this .py file.
        modality: list only those of one kind of data (any, image, text, table, audio ...).
        search: list only those with this text in their id, title, authors, paper, summary or keywords.
        json: print JSON.
    """
    from ancestral.commands import catalogue

    if id:
        catalogue.details(id, json)
    else:
        catalogue.listing(modality, search, json)


def check(recipe: Positional[Annotated[str, arg(metavar="ID|FILE.py")]], json: bool = False) -> int:
    """Test that a recipe obeys the laws: causality, normalisation, coding, completion, resuming ...

    Args:
        recipe: a recipe's id, or a .py file with recipes of your own.
        json: print the verdicts as JSON.
    """
    from ancestral.commands import catalogue

    return catalogue.check(recipe, json)


def quickstart(
    minutes: Annotated[float | None, arg(aliases=["-m"], metavar="FLOAT", help_behavior_hint="(optional)")] = None,
    out: Annotated[Path, arg(aliases=["-o"], metavar="FOLDER")] = Path("quickstart"),
    seed: int = 0,
    json: bool = False,
) -> None:
    """Run everything once on small digits, within two minutes, and write an illustrated report.

    Args:
        minutes: training time; by default what this machine's speed leaves of two minutes.
        out: folder of the model, the compressed test set and report.html.
        seed: the same seed gives the same start and the same draws.
        json: print the results as JSON.
    """
    from ancestral.quickstart import run

    run(minutes, out, seed, json)
