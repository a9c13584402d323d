"""The command that judges a model of tables or images: report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from ancestral.commands.arguments import Data, MaybeFloat, MaybePath, MaybeText, Saved, Settings

if TYPE_CHECKING:
    from ancestral.model import Model


def report(
    model: Positional[Saved],
    data: Positional[Data],
    out: Annotated[Path, arg(aliases=["-o"], metavar="PAGE.html")] = Path("report.html"),
    training: MaybePath = None,
    target: MaybeText = None,
    rows: int = 10_000,
    samples: int = 1000,
    features: Annotated[str, arg(metavar="ID|PATH")] = "label-classifier",
    feature_minutes: MaybeFloat = None,
    guidance: float = 0.0,
    set_: Settings = (),
    seed: int = 0,
    json: bool = False,
) -> None:
    """Judge a model of tables or images: one HTML page that holds what it draws against real items.

    Args:
        model: a saved model of tables or images.
        data: real rows or images that the model was not trained on.
        out: the page to write.
        training: the table that it was trained on, to look for copies of its rows; or the images, to train the feature
            network on (by default it learns from half of DATA).
        target: of tables: column that a classifier predicts when it learns from synthetic rows; guessed by default.
        rows: use at most so many real rows or images, chosen at random.
        samples: of images: how many to draw.
        features: of images: a feature network of the catalogue (`ancestral recipes --modality features`), the folder of
            a saved one, or a file of Inception-v3 weights in the FID layout.
        feature_minutes: of images: training time of the feature network; by default ten passes over the images.
        guidance: of images: classifier-free guidance scale.
        set_: an option of the reader (size=32).
        seed: of the samples, the choices and the classifiers.
        json: print the figures as JSON; the page is written all the same.
    """
    from rich.console import Console

    from ancestral.api import load
    from ancestral.commands import console
    from ancestral.errors import DataError
    from ancestral.evaluation.quality import measure
    from ancestral.evaluation.quality_page import page
    from ancestral.files import atomic_path

    if out.suffix.lower() not in (".html", ".htm"):
        raise DataError(f"the report is a page of HTML, not {out.name}; give --out a name that ends in .html")
    if rows < 20:
        raise DataError(f"--rows {rows} is too few to compare; give at least 20")
    console.reserve(out, folder=False)
    loaded = load(model)
    reading = console.reader_settings(loaded, set_) if set_ else {}
    if getattr(loaded, "tokenizer", None) is not None and loaded.tokenizer.modality == "images":
        settings = {"samples": samples, "guidance": guidance, "most": rows, "seed": seed, "reading": reading}
        _images(loaded, model, data, out, training, features, feature_minutes, settings, json)
        return
    with Console(stderr=True).status("reading", spinner="dots") as status:
        table: Any = loaded.read(data, **reading) if reading else data
        known: Any = loaded.read(training, **reading) if reading and training else training
        found = measure(loaded, table, known, target=target, rows=rows, seed=seed, say=lambda what: status.update(what))
    card = [
        ("model", str(model)),
        ("recipe", f"{loaded.name}, {loaded.parameters:,} parameters"),
        ("real rows", f"{data} ({len(found.real):,} used)"),
        ("training rows", f"{training} ({found.trained:,})" if training else "not given"),
        ("seed", str(seed)),
    ]
    with atomic_path(out) as path:
        path.write_text(page(found, f"Quality of {model.resolve().name.split('.')[0]}", card), encoding="utf-8")
    if json:
        console.emit({"out": out, **found.summary()})
        return
    lines = [("page", str(out))]
    if found.auc is not None:
        lines.append(("two-sample AUC", f"{found.auc:.3f} (real against real {found.auc_real:.3f})"))
    if found.worth is not None:
        name = f"{found.worth_name} on {found.target}"
        lines.append((name, f"{found.worth:.3f} from synthetic rows, {found.worth_real:.3f} from real ones"))
    if found.privacy is not None:
        lines.append(("copies", f"{found.privacy.copies:.2%} (fresh real rows {found.privacy.real_copies:.2%})"))
    if found.row_bits is not None:
        lines.append(("bits per row", f"{found.row_bits:.2f}"))
    console.facts([*lines, *((f"no {what}", why) for what, why in found.notes.items())])


def _images(
    loaded: Model,
    model: Path,
    data: Path,
    out: Path,
    training: Path | None,
    features: str,
    feature_minutes: float | None,
    settings: dict[str, Any],
    json: bool,
) -> None:
    """The report of a model of images."""
    from rich.console import Console

    from ancestral.commands import console
    from ancestral.evaluation.image_page import page
    from ancestral.evaluation.images import report
    from ancestral.files import atomic_path

    taught = {} if feature_minutes is None else {"minutes": feature_minutes}
    with Console(stderr=True).status("reading", spinner="dots") as status:
        found = report(
            loaded, data, training, features=features, teaching=taught, say=lambda what: status.update(what), **settings
        )
    card = [
        ("model", str(model)),
        ("recipe", f"{loaded.name}, {loaded.parameters:,} parameters"),
        ("real images", f"{data} ({len(found.real):,} used)"),
        ("seed", str(settings["seed"])),
    ]
    with atomic_path(out) as path:
        path.write_text(page(found, f"Quality of {model.resolve().name.split('.')[0]}", card), encoding="utf-8")
    if json:
        console.emit({"out": out, **found.summary()})
        return
    first = found.figures["frechet"]
    lines = [
        ("page", str(out)),
        ("reference", f"{first.reference} ({first.real:,} images), {first.made:,} drawn"),
        ("feature network", first.network),
    ]
    for figure in found.figures.values():
        real = "" if figure.floor is None else f" (real images {figure.floor:.4g})"
        lines.append((figure.name, f"{figure.value:.4g}{real}"))
    if found.tokenizer is not None and "used" in found.tokenizer:
        lines.append(("codebook", f"{found.tokenizer['used']:.1%} of the codes in use"))
    lines.append(("drawing", f"{found.drawn.passes:g} forward passes, {found.drawn.seconds:.3g} s per image"))
    console.facts([*lines, *((f"no {what}", why) for what, why in found.notes.items())])
