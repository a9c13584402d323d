"""The API reference: a page per room of the package, from signatures and docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import ancestral
from sitegen.docstrings import inline, markdown, signature

ROOMS = (
    ("api", "The front door"),
    ("model", "Model"),
    ("scores", "Scores"),
    ("order", "Orders"),
    ("space", "Space"),
    ("generator", "Generator"),
    ("objectives", "Objectives"),
    ("augment", "Augmentation"),
    ("networks", "Networks"),
    ("heads", "Heads"),
    ("decoding", "Decoding"),
    ("coding", "Coding"),
    ("tokenizers", "Tokenizers"),
    ("tokenizers.learned", "Learned tokenizers"),
    ("published", "Authors' checkpoints"),
    ("data", "Data"),
    ("training", "Training"),
    ("evaluation", "Evaluation"),
    ("recipes.registry", "Recipe records"),
    ("recipes.toys", "Toy data"),
    ("serving", "Serving"),
    ("laws", "Laws"),
    ("errors", "Errors"),
)
"""Rooms that users and authors of recipes meet, in the order in which they meet them."""


def modules_of(room: str) -> list[ModuleType]:
    """The modules of a room, without private ones."""
    top = importlib.import_module(f"{ancestral.__name__}.{room}")
    if not hasattr(top, "__path__"):
        return [top]
    names = [info.name for info in pkgutil.iter_modules(top.__path__) if not info.name.startswith("_")]
    return [top, *(importlib.import_module(f"{top.__name__}.{name}") for name in names)]


def public(module: ModuleType) -> list[tuple[str, Any]]:
    """Documented classes and functions that the module itself defines, in its order."""
    found = []
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", "") != module.__name__:
            continue
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__doc__:
            found.append((name, value))
    return found


def described(value: Any) -> list[tuple[str, str, str]]:
    """(name, declaration, text) of the assignments in a class or module that a string below describes."""
    source = textwrap.dedent(inspect.getsource(value))
    body = ast.parse(source).body
    if inspect.isclass(value):
        body = body[0].body  # type: ignore[attr-defined]
    found = []
    for node, below in pairwise(body):
        target: ast.expr | None = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
        if not isinstance(target, ast.Name) or target.id.startswith("_"):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            shown = ast.get_source_segment(source, node) or target.id
            text = " ".join(inspect.cleandoc(below.value.value).split())
            found.append((target.id, shown if shown.count("\n") < 12 else target.id, text))
    return found


def _fields(value: Any) -> str:
    rows = [f"- `{shown}`: {inline(text)}" for _, shown, text in described(value)]
    return "\n**Attributes**\n\n" + "\n".join(rows) + "\n" if rows else ""


def _member(owner: str, name: str, value: Any) -> str:
    if isinstance(value, property) or type(value).__name__ == "cached_property":
        function: Any = value.fget if isinstance(value, property) else value.func
        if not function.__doc__:
            return ""
        back = inspect.signature(function).return_annotation
        kind = "" if back is inspect.Signature.empty else f": {back if isinstance(back, str) else back.__name__}"
        return f"\n#### {owner}.{name}\n\n```python\n{name}{kind}  # property\n```\n\n{markdown(function.__doc__)}\n"
    plain: Any = getattr(value, "__func__", value)
    if not inspect.isfunction(plain) or not plain.__doc__:
        return ""
    bound = isinstance(value, (classmethod, staticmethod))
    shown = signature(name, plain)
    if isinstance(value, classmethod):
        shown = shown.replace("(cls, ", "(", 1).replace("(cls)", "()", 1).replace("    cls,\n", "", 1)
    prefix = f"{owner}." if bound else ""
    return f"\n#### {owner}.{name}\n\n```python\n{prefix}{shown}\n```\n\n{markdown(plain.__doc__)}\n"


def entry(name: str, value: Any) -> str:
    """One class with its documented methods and properties, or one function."""
    text = f"\n### {name}\n\n```python\n{signature(name, value)}\n```\n\n{markdown(value.__doc__)}\n"
    if inspect.isclass(value):
        bases = [b.__name__ for b in value.__bases__ if b.__module__.startswith(ancestral.__name__)]
        if bases:
            text += f"\nA kind of {', '.join(f'`{b}`' for b in bases)}.\n"
        text += _fields(value)
        for member, inner in vars(value).items():
            if not member.startswith("_"):
                text += _member(name, member, inner)
    return text


def room_page(room: str, title: str) -> str:
    """The page of a room: its modules, one after the other."""
    modules = modules_of(room)
    parts = [f"# {title}\n"]
    for module in modules:
        entries = public(module)
        if not entries and not described(module) and module is not modules[0]:
            continue
        if len(modules) > 1 and module is not modules[0]:
            parts.append(f"\n## {module.__name__}\n")
        else:
            parts.append(f"\n`{module.__name__}`\n")
        parts.append(f"\n{markdown(module.__doc__)}\n")
        parts += [entry(name, value) for name, value in entries]
        for name, shown, text in described(module):
            parts.append(f"\n### {name}\n\n```python\n{shown}\n```\n\n{inline(text)}\n")
    return "".join(parts)


def write_reference(folder: Path) -> list[tuple[str, str]]:
    """Write all pages; returns (title, path relative to the docs) of each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, pages = [], []
    for room, title in ROOMS:
        name = f"{room.replace('.', '-')}.md"
        (folder / name).write_text(room_page(room, title), encoding="utf-8")
        about = markdown(modules_of(room)[0].__doc__).split("\n\n")[0].replace("\n", " ")
        rows.append(f"| [{title}]({name}) | `ancestral.{room}` | {about} |")
        pages.append((title, f"{folder.name}/{name}"))
    index = (
        "# API reference\n\nGenerated from the docstrings. Most users need the [front door](api.md) and "
        "[Model](model.md) only; the rest is for those who compose systems.\n\n| page | import | what it is |\n"
        "|---|---|---|\n" + "\n".join(rows) + "\n"
    )
    (folder / "index.md").write_text(index, encoding="utf-8")
    return [("Overview", f"{folder.name}/index.md"), *pages]
