"""Commands that draw: sample, complete."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from ancestral.commands.arguments import Data, MaybeFloat, MaybeInt, MaybeText, RecipeFile, Saved, Settings
from ancestral.errors import DataError


def sample(
    model: Positional[Saved],
    n: Annotated[int, arg(aliases=["-n"])] = 16,
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="PATH", help_behavior_hint="(optional)")] = None,
    label: MaybeText = None,
    caption: MaybeText = None,
    given: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="COLUMN=VALUE|TEXT")] = (),
    seed: int = 0,
    first: int = 0,
    length: MaybeInt = None,
    order: MaybeText = None,
    guidance: float = 0.0,
    temperature: MaybeFloat = None,
    top_k: MaybeInt = None,
    top_p: MaybeFloat = None,
    min_p: MaybeFloat = None,
    overwrite: bool = False,
    recipe: RecipeFile = None,
    json: bool = False,
) -> None:
    """Draw new items from a model.

    Args:
        model: a saved model.
        n: how many items.
        out: where to write them: a folder, .npz, .csv, .parquet, .jsonl, .txt ...; a .png shows all images on
            one sheet. By default tables and text are printed, images put on samples.png, sounds in samples/.
        label: the class to draw, by name or number.
        caption: a text that says what to draw, for models of images with captions.
        given: what every item shall have: a table's column and value (sex=Female), range (age=30..40, age=30..,
            date=..2024-03-31; ends included) or set ("workclass in Private, Local-gov"), repeated for several
            columns; or the beginning of a text or sequence.
        seed: item i depends on the seed and i only.
        first: number of the first item, to go on where an earlier call ended.
        length: symbols to draw, for models of running text.
        order: draw in this order (raster, reverse, hilbert ...) rather than the model's own.
        guidance: strengthen the label or caption by this scale (classifier-free guidance).
        temperature: below 1 for safer, above 1 for bolder items.
        top_k: draw among the k likeliest values only.
        top_p: draw among the likeliest values of this total probability only.
        min_p: drop values less likely than this share of the likeliest.
        overwrite: replace a folder that is not empty.
        recipe: the file of the model's recipe, where it is not one of the package's and has moved.
        json: print the items (or where they were written) as JSON.
    """
    from ancestral.commands import console
    from ancestral.commands.conditions import conditions
    from ancestral.data.tablefiles import CHUNK

    loaded = console.load(model, recipe)
    console.refuse_for_streams(loaded, label=label, caption=caption, order=order, guidance=guidance, first=first)
    images = loaded.tokenizer.modality == "images"
    target = out or default_target("samples", loaded.tokenizer.modality)
    if target is not None:
        console.reserve(target, folder=not target.suffix, overwrite=overwrite, modality=loaded.tokenizer.modality)
    options = _drawing(temperature, top_k, top_p, min_p)
    if caption is not None:
        options["caption"] = caption
    common: dict[str, Any] = {"seed": seed, "order": order, "guidance": guidance, "as_dataset": True, **options}
    if loaded.tokenizer.streaming:
        common = {"seed": seed, "as_dataset": True, "length": length, **options}
    if loaded.tokenizer.streaming and given and loaded.tokenizer.modality != "audio":
        drawn = loaded.complete([" ".join(given)], draws=n, **common)
    else:
        if images and given:
            raise DataError("parts of images are given by `ancestral complete MODEL IMAGE --known top`")
        if given and loaded.tokenizer.modality == "audio":
            raise DataError("the beginning of a sound is given by `ancestral complete MODEL CLIP.wav`")
        start: Any = None
        if given and loaded.tokenizer.modality == "table":
            start = conditions(loaded.tokenizer, given)
        elif given:
            parsed = console.literal(" ".join(given))
            start = parsed if isinstance(parsed, list) else " ".join(given).split()
        if loaded.tokenizer.modality == "table" and target is not None and n > CHUNK:
            common.pop("as_dataset")
            loaded.sample(n, label=console.label_of(loaded, label), given=start, first=first, out=target, **common)
            if json:
                console.emit({"n": n, "seed": seed, "out": target})
            else:
                console.stdout().print(f"{n} rows in {target}", markup=False)
            return
        drawn = loaded.sample(n, label=console.label_of(loaded, label), given=start, first=first, **common)
    written = None if target is None else console.write(drawn, target)
    if json:
        items = {} if _pictured(drawn) else {"items": _plain(drawn)}
        console.emit({"n": len(drawn), "seed": seed, "out": target, **items})
    elif written is not None:
        console.stdout().print(written, markup=False)
    else:
        console.show(drawn)


def complete(
    model: Positional[Saved],
    data: Positional[Data],
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="PATH", help_behavior_hint="(optional)")] = None,
    known: MaybeText = None,
    draws: Annotated[int, arg(aliases=["-k"])] = 1,
    point: bool = False,
    label: MaybeText = None,
    caption: MaybeText = None,
    seed: int = 0,
    length: MaybeInt = None,
    guidance: float = 0.0,
    temperature: MaybeFloat = None,
    top_k: MaybeInt = None,
    top_p: MaybeFloat = None,
    min_p: MaybeFloat = None,
    set_: Settings = (),
    overwrite: bool = False,
    recipe: RecipeFile = None,
    json: bool = False,
) -> None:
    """Fill in what is missing: impute empty cells, inpaint images, continue texts.

    Args:
        model: a saved model.
        data: items with gaps: a table with empty cells, images (with --known), texts and sounds to continue.
        out: where to write the completed items; by default tables and text are printed, images put on
            completed.png, sounds in completed/.
        known: what is known: top, bottom, left or right half of images, columns of a table (age,sex), or a mask
            (.npy, or an image that is white where known); coarse for images that are smaller than the model's, to
            which models that draw scale by scale add the finer maps.
        draws: completions per item, next to each other.
        point: of tables: fill every gap with its best estimate (the median of numbers and dates, the likeliest value of
            everything else) rather than draw.
        label: the class of the items, by name or number; `own` takes each item's own label.
        caption: a text that says what to draw, for models of images with captions; `own` takes each item's own.
        seed: the same seed gives the same completions.
        length: symbols to add, for models of running text.
        guidance: strengthen the label or caption by this scale (classifier-free guidance).
        temperature: below 1 for safer, above 1 for bolder draws.
        top_k: draw among the k likeliest values only.
        top_p: draw among the likeliest values of this total probability only.
        min_p: drop values less likely than this share of the likeliest.
        set_: an option of the reader (size=32).
        overwrite: replace a folder that is not empty.
        recipe: the file of the model's recipe, where it is not one of the package's and has moved.
        json: print the items (or where they were written) as JSON.
    """
    from ancestral.commands import console

    loaded = console.load(model, recipe)
    console.refuse_for_streams(loaded, known=known, label=label, caption=caption, guidance=guidance)
    images = loaded.tokenizer.modality == "images"
    target = out or default_target("completed", loaded.tokenizer.modality)
    if target is not None:
        console.reserve(target, folder=not target.suffix, overwrite=overwrite, modality=loaded.tokenizer.modality)
    dataset = console.read_for(loaded, data, set_)
    if images and known is None:
        raise DataError("image files have no gaps of their own; say what is known, for instance --known top")
    options = _drawing(temperature, top_k, top_p, min_p)
    if point:
        from ancestral.tables import impute

        others = {"known": known, "draws": draws > 1, "label": label, "guidance": guidance, **options}
        odd = next((name.replace("_", "-") for name, value in others.items() if value), None)
        if odd is not None:
            raise DataError(f"--point fills empty cells with best estimates, without drawing; leave out --{odd}")
        done, method = impute(loaded, dataset, as_dataset=True), "point"
    else:
        done, details = loaded.complete(
            dataset,
            known=None if known is None else console.known_mask(loaded, known),
            draws=draws,
            label=console.label_of(loaded, label),
            caption=True if caption == "own" else caption,
            seed=seed,
            length=length,
            guidance=guidance,
            as_dataset=True,
            details=True,
            **options,
        )
        method = details.method
    written = None if target is None else console.write(done, target)
    if json:
        content = {"n": len(done), "draws": draws, "method": method, "out": target}
        console.emit(content if _pictured(done) else {**content, "items": _plain(done)})
    elif written is not None:
        words = {
            "exact": "conditioned exactly (any-order model)",
            "prefix": "conditioned exactly (what is known comes first)",
            "importance": "conditioned approximately, by importance resampling",
            "point": "best estimates, cell by cell",
            "pinned": "conditioned approximately, what is known held while the rest of its set is drawn",
        }
        console.stdout().print(f"{written}; {words.get(method, method)}", markup=False)
    else:
        console.show(done)


def _drawing(*values: float | int | None) -> dict[str, Any]:
    """The options that were given: temperature, top_k, top_p, min_p; drawing refuses those out of range."""
    names = ("temperature", "top_k", "top_p", "min_p")
    return {name: value for name, value in zip(names, values) if value is not None}


def default_target(name: str, modality: str) -> Path | None:
    """Where items go that cannot be printed."""
    return {"images": Path(f"{name}.png"), "audio": Path(name)}.get(modality)


def _pictured(dataset: Any) -> bool:
    """Whether items are files rather than words."""
    return dataset.modality in ("images", "audio")


def _plain(dataset: Any) -> Any:
    native = dataset.native()
    return native.astype(object).to_dict("records") if hasattr(native, "to_dict") else native
