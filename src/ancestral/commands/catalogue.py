"""The catalogue of recipes on the terminal: a table, one recipe in detail, and its laws.

Recipes are read as text; only ``check`` imports one.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

from ancestral.commands import console
from ancestral.errors import DataError
from ancestral.recipes.registry import Recipe, catalogue, feature_networks, find, studies
from ancestral.recipes.results import RESULTS, read_results, verdict


def _record(recipe: Recipe) -> dict[str, Any]:
    return {
        "id": recipe.id,
        "modality": recipe.modality,
        "title": recipe.title,
        "authors": recipe.authors,
        "paper": recipe.paper,
        "summary": recipe.summary,
        "claim": recipe.claim.text,
        "benchmark": recipe.claim.benchmark,
        "differs_from": recipe.differs_from,
        "known_failures": recipe.xfail,
        "keywords": recipe.keywords,
        "tiny": recipe.tiny,
    }


def listing(modality: str | None, search: str | None, as_json: bool) -> None:
    """Print the recipes, those of one modality or with a text only.

    Raises:
        DataError: a modality that no recipe has.
    """
    known = [*catalogue().values(), *studies().values(), *feature_networks().values()]
    kinds = sorted({r.modality for r in known})
    if modality is not None:
        wanted = modality.lower()
        # Folders are in the singular; "images" and "tables" mean them too.
        match = next((k for k in kinds if wanted in (k, k + "s")), None)
        if match is None:
            raise DataError(f"no recipe is for {modality!r}; there are recipes for {', '.join(kinds)}")
        known = [r for r in known if r.modality == match]
    if search:
        words = search.lower().split()
        texts = {r.id: " ".join(map(str, _record(r).values())).lower() for r in known}
        known = [r for r in known if all(w in texts[r.id] for w in words)]
    if as_json:
        console.emit([_record(r) for r in known])
        return
    out = console.stdout()
    if not known:
        out.print(f"no recipe mentions {search!r}; `ancestral recipes` lists all", markup=False)
        return
    if not out.is_terminal:
        for r in known:
            print("\t".join((r.id, r.modality, r.summary, r.paper)))
        return
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("recipe", "data", "what it does", "paper"):
        table.add_column(title, no_wrap=title in ("recipe", "data"))
    for r in known:
        table.add_row(f"[bold]{escape(r.id)}[/bold]", r.modality, escape(r.summary), escape(r.paper))
    out.print(table)
    out.print(f"{len(known)} recipes; `ancestral recipes ID` describes one", markup=False)


def details(name: str, as_json: bool) -> None:
    """Print one recipe: what it does, its arguments and their defaults, where it is from.

    Raises:
        DataError: no such recipe.
    """
    others = studies() | feature_networks()
    recipe = others[name] if name in others else find(name)
    arguments, text = _source(recipe)
    measured = verdict(recipe, read_results()) if RESULTS.is_dir() else ""
    if as_json:
        found = {"arguments": arguments, "description": text, "file": recipe.path, "verdict": measured}
        console.emit({**_record(recipe), **found})
        return
    claim = recipe.claim.text
    if recipe.claim.benchmark:
        claim += f" (measured by benchmarks/{recipe.claim.benchmark}.py)"
    rows = [
        ("recipe", recipe.id),
        ("title", recipe.title),
        ("from", ", ".join(part for part in (recipe.authors, recipe.paper) if part)),
        ("data", recipe.modality),
        ("claim", claim),
        ("verdict", measured),
        ("relative", recipe.differs_from),
        ("file", recipe.path.name if recipe.modality == "outside" else _inside(recipe)),
        *((f"fails {law}", reason) for law, reason in recipe.xfail.items()),
    ]
    console.facts([(label, value) for label, value in rows if value])
    out = console.stdout()
    out.print(f"\n{text}\n", markup=False)
    if arguments:
        out.print("arguments (change them with --set NAME=VALUE):", markup=False)
        console.facts([(f"  {label}", "required" if v is None else v) for label, v in arguments.items()])
    commands = {"study": f"study {name}", "features": f"report MODEL IMAGES --features {name}"}
    command = commands.get(recipe.modality, f"fit DATA --recipe {name}")
    out.print(f"\nnext:  ancestral {command}", markup=False)


def _inside(recipe: Recipe) -> str:
    return f"ancestral/recipes/{recipe.modality}/{recipe.path.name}"


def _source(recipe: Recipe) -> tuple[dict[str, str | None], str]:
    """Arguments with their defaults as written, and the docstring, without importing the file."""
    tree = ast.parse(recipe.path.read_text(encoding="utf-8"))
    node = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == recipe.function)
    plain = [*node.args.posonlyargs, *node.args.args]
    padded = [None] * (len(plain) - len(node.args.defaults)) + list(node.args.defaults)
    pairs = [*zip(plain, padded), *zip(node.args.kwonlyargs, node.args.kw_defaults)]
    arguments = {a.arg: None if d is None else ast.unparse(d) for a, d in pairs}
    return arguments, inspect.cleandoc(ast.get_docstring(node) or "")


def check(name: str, as_json: bool) -> int:
    """Run the laws on the recipes of a file, or on one of the package, and print the verdicts.

    Returns:
        0 if all that apply hold (or were declared to fail), else 1.

    Raises:
        DataError: no such recipe.
    """
    from ancestral import laws
    from ancestral.recipes.registry import read_records

    chosen = read_records(Path(name), "outside") if name.endswith(".py") else [find(name)]
    if not chosen:
        raise DataError(f"{name} defines no recipe; decorate a function with @recipe(...)")
    out = console.stdout()
    failed = 0
    records = []
    for recipe in chosen:
        if not as_json:
            out.print(f"{recipe.id}: {recipe.summary}", markup=False)
        laws.check(recipe, ())  # refuses unknown names before anything runs
        exam = laws.Exam(recipe)
        for law in laws.LAWS:
            result = laws.examine(exam, law)
            failed += result.status == "failed"
            records.append({"recipe": recipe.id, "law": law, "status": result.status, "detail": result.detail})
            if not as_json:
                detail = " ".join(result.detail.split())
                out.print(f"  {law:<14} {result.status:<15} {detail}".rstrip(), markup=False)
    if as_json:
        console.emit(records)
    else:
        out.print("all laws that apply hold" if not failed else f"{failed} failed", markup=False)
    return 1 if failed else 0
