"""The command that compares recipes: compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from ancestral.commands.arguments import Data, MaybeFloat, MaybePath, MaybeTokenizer, Settings

if TYPE_CHECKING:
    from ancestral.evaluation.comparison import Comparison


def compare(
    data: Positional[Data],
    recipes: Annotated[str, arg(aliases=["-r"], metavar="ID,ID,...")],
    minutes: Annotated[float, arg(aliases=["-m"])] = 2.0,
    out: Annotated[Path, arg(aliases=["-o"], metavar="PAGE.html")] = Path("comparison.html"),
    test: MaybePath = None,
    modality: Literal["auto", "images", "text", "bytes", "table", "sequences", "audio"] = "auto",
    samples: int = 500,
    features: Annotated[str, arg(metavar="ID|PATH")] = "label-classifier",
    feature_minutes: MaybeFloat = None,
    guidance: float = 0.0,
    tokenizer: MaybeTokenizer = None,
    set_: Settings = (),
    seed: int = 0,
    quiet: bool = False,
    json: bool = False,
) -> int:
    """Train several recipes for the same time, and put their samples, costs and quality side by side.

    Args:
        data: as for fit.
        recipes: ids, or .py files, separated by commas; `ancestral recipes` lists them.
        minutes: training time of each, a learned tokenizer's included.
        out: the page to write.
        test: data to measure with; by default a tenth of DATA, which no recipe sees.
        modality: what the data are, where that is not plain from the files.
        samples: items that each recipe draws.
        features: for images: a feature network of the catalogue (`ancestral recipes --modality features`), the folder
            of a saved one, or a file of Inception-v3 weights in the FID layout.
        feature_minutes: training time of the feature network; by default ten passes over the images.
        guidance: classifier-free guidance scale, for images with classes.
        tokenizer: a saved tokenizer, or a saved model, whose tokenizer all recipes use, or the name of one, as for fit.
        set_: an argument of recipes (width=64; those that have it take it), of training (lr=1e-3) or of the reader
            (size=32; reader.channels=1 where a recipe has channels, too).
        seed: of the split, the training and the draws.
        quiet: no progress bars.
        json: print the table as JSON; the page is written all the same.
    """
    from dataclasses import MISSING, fields

    from rich.console import Console

    from ancestral.commands import console
    from ancestral.data import sniff
    from ancestral.errors import DataError
    from ancestral.evaluation.comparison import compare as run
    from ancestral.evaluation.comparison_page import page
    from ancestral.files import atomic_path
    from ancestral.recipes.registry import find
    from ancestral.training import TrainConfig

    if out.suffix.lower() not in (".html", ".htm"):
        raise DataError(f"the comparison is a page of HTML, not {out.name}; give --out a name that ends in .html")
    chosen = [name.strip() for name in recipes.split(",") if name.strip()]
    kind = sniff(data) if modality == "auto" else modality
    groups = {f"of recipe {find(name).id}": find(name).config() for name in chosen}
    groups["of training"] = {f.name: None if f.default is MISSING else f.default for f in fields(TrainConfig)}
    options, reading = console.choose_apart(set_, groups, kind)
    console.reserve(out, folder=False)
    told = Console(stderr=True)
    found = run(
        data, chosen, minutes, test=test, modality=kind, samples=samples, features=features, tokenizer=tokenizer,
        feature_minutes=feature_minutes, guidance=guidance, seed=seed, reading=reading,
        settings=options, quiet=quiet or json, name=data.name,
        say=lambda what: None if quiet or json else told.print(what, style="dim"),
    )  # fmt: skip
    card = [("data", str(data)), ("budget", f"{minutes:g} minutes of training per recipe"), ("draws", f"{samples:,}")]
    with atomic_path(out) as path:
        path.write_text(page(found, f"Recipes on {data.resolve().name}", card), encoding="utf-8")
    failed = [row for row in found.rows if row.failed]
    if json:
        console.emit({"out": out, **found.summary()})
    else:
        _print(found, out)
    return 1 if len(failed) == len(found.rows) else 0


def _print(found: Comparison, out: Path) -> None:
    from rich import box
    from rich.table import Table

    from ancestral.commands import console

    names = [
        n for n in ("frechet", "precision", "recall", "accuracy", "auc", "marginal", "bits") if n in found.measures
    ]
    names = [n for n in names if any(n in row.quality for row in found.rows)]
    lines = [["recipe", "parameters", "steps", "passes", "s/item", *(n.replace("_", " ") for n in names)]]
    for row in found.rows:
        if not row.failed:
            numbers = [f"{row.quality[n]:.3g}" if n in row.quality else "" for n in names]
            cost = [f"{row.parameters:,}", f"{row.steps:,}", f"{row.passes:g}", f"{row.seconds:.3g}"]
            lines.append([row.recipe, *cost, *numbers])
    screen = console.stdout()
    # As many columns as fit the terminal whole; the page and --json have them all.
    widths = [max(map(len, column)) + 3 for column in zip(*lines, strict=True)]
    shown = max(2, sum(sum(widths[: k + 1]) < screen.width for k in range(len(widths))))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for k, title in enumerate(lines[0][:shown]):
        table.add_column(title, no_wrap=True, justify="right" if k else "left")
    for line in lines[1:]:
        table.add_row(*line[:shown])
    screen.print(table)
    if shown < len(widths):
        screen.print(f"not shown, but on the page: {', '.join(lines[0][shown:])}", markup=False)
    for row in found.rows:
        if row.failed:
            screen.print(f"{row.recipe}: {row.failed}", markup=False)
    console.facts(
        [
            ("measured with", found.reference),
            ("drawn", f"{max(row.count for row in found.rows):,} per recipe"),
            *([("features of", found.network)] if found.network else []),
            ("page", str(out)),
        ]
    )
