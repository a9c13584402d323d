"""The command that judges a model of tables: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ancestral.commands.arguments import Data, MaybePath, MaybeText, Saved


def report(
    model: Positional[Saved],
    data: Positional[Data],
    out: Annotated[Path, arg(aliases=["-o"], metavar="PAGE.html")] = Path("report.html"),
    training: MaybePath = None,
    target: MaybeText = None,
    rows: int = 10_000,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Judge a model of tables: one HTML page that holds what it draws against real rows.

    Args:
        model: a saved model of tables.
        data: real rows that the model was not trained on.
        out: the page to write.
        training: the table that it was trained on, to look for copies of its rows.
        target: column that a classifier predicts when it learns from synthetic rows; guessed by default.
        rows: use at most so many rows of each table, chosen at random.
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
    with Console(stderr=True).status("reading", spinner="dots") as status:
        found = measure(
            loaded, data, training, target=target, rows=rows, seed=seed, say=lambda what: status.update(what)
        )
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
