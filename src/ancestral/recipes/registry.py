"""The record of every system, found by walking the folder of recipes; nothing is listed by hand.

Listing reads the decorators as text and imports nothing; a recipe's module is imported when it is used.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ancestral.errors import AncestralError, DataError
from ancestral.recipes.arguments import check_arguments

if TYPE_CHECKING:
    from ancestral.model import Model


@dataclass(frozen=True)
class Claim:
    """The main claim of a paper and the benchmark that measures it.

    Attributes:
        text: the claim in one sentence.
        benchmark: name of the script in ``benchmarks/`` that writes ``benchmarks/results/<id>.json``; empty if
            there is none yet (the catalogue then says "not tested").
    """

    text: str
    benchmark: str = ""


@dataclass(frozen=True)
class Recipe:
    """One published system.

    Attributes:
        id: name, the same everywhere.
        title: title of the paper, or of the system.
        paper: where it was published ("arXiv:...").
        authors: authors, year.
        tiny: arguments of a size for tests.
        toy: name of the enumerable toy data that the laws use (see ``ancestral.recipes.toys``).
        claim: what is to be measured.
        differs_from: id of the closest relative.
        xfail: laws known to fail, with the reason.
        modality: the folder it lives in.
        path: its file.
        function: name of its function.
        summary: first line of its docstring.
    """

    id: str
    title: str
    paper: str
    authors: str
    tiny: dict[str, Any]
    toy: str
    claim: Claim
    differs_from: str
    xfail: dict[str, str]
    modality: str
    path: Path
    function: str
    summary: str
    keywords: tuple[str, ...] = field(default=())

    @property
    def build(self) -> Callable[..., Model]:
        """The function that composes the model; imports its module.

        Raises:
            DataError: the file fails, or an argument has the name of one of training's, which ``fit`` takes too.
        """
        from ancestral.training.config import TrainConfig

        function: Callable[..., Model] = getattr(_module(self), self.function)
        taken = {f.name for f in fields(TrainConfig)} & set(inspect.signature(function).parameters)
        if taken:
            raise DataError(
                f"recipe {self.id} has an argument {min(taken)!r}, which is an option of training as well; rename it, "
                "so that fit can tell them apart"
            )
        return function

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with the recipe's code and its arguments' defaults.

        Comments, docstrings and the record in the decorator do not count.
        """
        tree = ast.parse(self.path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
                del node.body[0]
            if isinstance(node, ast.FunctionDef):
                node.decorator_list = [
                    mark for mark in node.decorator_list if not (isinstance(mark, ast.Call) and _is_mark(mark))
                ]
        return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12]

    def config(self, **changes: Any) -> dict[str, Any]:
        """The full configuration: the signature's defaults with ``changes``.

        Raises:
            DataError: an argument that the recipe does not have, or a value that it cannot have.
        """
        signature = inspect.signature(self.build)
        unknown = [name for name in changes if name not in signature.parameters]
        if unknown:
            raise DataError(
                f"recipe {self.id} has no argument {unknown[0]!r}; it takes {', '.join(signature.parameters)}"
            )
        defaults = {name: p.default for name, p in signature.parameters.items()}
        check_arguments(self.id, self.build, changes, defaults)
        return {**defaults, **changes}

    def __call__(self, **changes: Any) -> Model:
        """An untrained model of this recipe."""
        config = self.config(**changes)
        try:
            model = self.build(**config)
        except (ValueError, TypeError) as error:
            raise DataError(f"recipe {self.id} cannot be built with these arguments: {error}") from error
        model.recipe, model.config = self, config
        return model


def recipe(id: str, **record: Any) -> Callable[[Callable[..., Model]], Callable[..., Model]]:
    """Mark the function below as the recipe ``id``; the record's fields are those of :class:`Recipe`.

    All arguments must be literals (and ``Claim(...)``), because listing reads them without importing.
    """

    def mark(function: Callable[..., Model]) -> Callable[..., Model]:
        return function

    return mark


def _literal(node: ast.expr, where: str) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("dict", "Claim"):
        positional = [_literal(a, where) for a in node.args]
        named = {k.arg: _literal(k.value, where) for k in node.keywords if k.arg}
        return Claim(*positional, **named) if node.func.id == "Claim" else dict(*positional, **named)
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise DataError(f"{where}: the arguments of @recipe must be literals") from error


def _is_mark(call: ast.Call, kind: str = "recipe") -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == kind


def study(id: str, **record: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark the function below as the study ``id``: an experiment on models rather than a model.

    The record is that of a recipe. The function's arguments are its configuration; it returns JSON content with the
    finding, and ``tiny=`` makes it short.
    """

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    return mark


def feature_network(id: str, **record: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark the function below as the feature network ``id``, by which images are compared.

    The record is that of a recipe. The function's arguments are its configuration; it returns an
    :class:`ancestral.evaluation.features.FeatureNetwork`.
    """

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    return mark


def read_records(path: Path, modality: str = "", kind: str = "recipe") -> list[Recipe]:
    """The recipes that a Python file defines, or what another decorator marks, read without running it.

    Raises:
        DataError: not Python, or a record with a missing or unknown field.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check the path") from error
    except (SyntaxError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not Python that can be read: {error}") from error
    found = []
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            if not (isinstance(mark, ast.Call) and _is_mark(mark, kind)):
                continue
            where = f"{path.name}, line {node.lineno}"
            named = {k.arg: _literal(k.value, where) for k in mark.keywords if k.arg}
            name = _literal(mark.args[0], where) if mark.args else named.pop("id", "")
            for needed in ("tiny", "title", "claim"):
                if needed not in named:
                    raise DataError(f"{where}: {kind} {name!r} has no {needed}=; add it to the decorator")
            claim = named.pop("claim")
            doc = ast.get_docstring(node) or ""
            try:
                found.append(
                    Recipe(
                        id=name,
                        modality=modality,
                        path=path,
                        function=node.name,
                        summary=doc.strip().split("\n")[0],
                        claim=claim if isinstance(claim, Claim) else Claim(claim),
                        **{
                            "paper": "",
                            "authors": "",
                            "toy": "grid",
                            "differs_from": "",
                            "xfail": {},
                            **named,
                        },
                    )
                )
            except TypeError as error:
                raise DataError(f"{where}: the record of {name!r} is wrong: {error}") from error
    return found


def _module(record: Recipe) -> Any:
    package = Path(__file__).parent
    if record.path.is_relative_to(package):
        dotted = ".".join(record.path.relative_to(package).with_suffix("").parts)
        return importlib.import_module(f"ancestral.recipes.{dotted}")
    try:
        state = f"{record.path.resolve()}:{record.path.stat().st_mtime_ns}"
    except OSError as error:
        raise DataError(f"cannot read {record.path}: {error.strerror or error}; check the path") from error
    # One name per file and version, so that a file runs once, and again only when it has changed.
    name = f"ancestral_outside_{record.path.stem}_{hashlib.sha256(state.encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, record.path)
    if spec is None or spec.loader is None:
        raise DataError(f"{record.path} cannot be imported; give a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except AncestralError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise DataError(f"{record.path} fails when imported: {type(error).__name__}: {error}") from error
    return module


_catalogue: dict[str, Recipe] | None = None


def catalogue() -> dict[str, Recipe]:
    """All recipes of the package by id, sorted."""
    global _catalogue
    if _catalogue is None:
        package = Path(__file__).parent
        found: dict[str, Recipe] = {}
        for path in sorted(package.glob("*/*.py")):
            if path.name.startswith("_"):
                continue
            for record in read_records(path, path.parent.name):
                if record.id in found:
                    raise DataError(f"recipe {record.id!r} is defined in {found[record.id].path} and in {path}")
                found[record.id] = record
        _catalogue = dict(sorted(found.items()))
    return _catalogue


def studies() -> dict[str, Recipe]:
    """All studies of the package by id, sorted; their ``build`` runs them."""
    return _others("study", "study")


def feature_networks() -> dict[str, Recipe]:
    """All feature networks of the package by id, sorted; their ``build`` makes them."""
    return _others("features", "feature_network")


def _others(folder: str, kind: str) -> dict[str, Recipe]:
    """What another decorator marks in a folder of the package, by id, sorted."""
    paths = [p for p in sorted((Path(__file__).parent / folder).glob("*.py")) if not p.name.startswith("_")]
    return {record.id: record for path in paths for record in read_records(path, folder, kind)}


def find(name: str | Path, inside: str = "") -> Recipe:
    """A recipe by id, or one in a Python file.

    Args:
        name: the id, or the file.
        inside: id of the recipe in the file; by default the first.

    Raises:
        DataError: no such recipe; close names are suggested.
    """
    if str(name).endswith(".py"):
        records = {record.id: record for record in reversed(read_records(Path(name), "outside"))}
        if not records:
            raise DataError(f"{name} defines no recipe; decorate a function with @recipe(...)")
        if inside and inside not in records:
            raise DataError(f"{name} has no recipe {inside!r}; it has {', '.join(reversed(records))}")
        return records[inside] if inside else list(records.values())[-1]
    known = catalogue()
    if name in studies():
        raise DataError(f"{name} is a study, not a model; run it with `ancestral study {name}`")
    if name in feature_networks():
        raise DataError(f"{name} is a feature network, not a model; compare images by it with --features {name}")
    if name not in known:
        import difflib

        close = difflib.get_close_matches(str(name), known, 3, 0.4)
        hint = f"did you mean {' or '.join(close)}?" if close else "`ancestral recipes` lists them"
        raise DataError(f"there is no recipe {str(name)!r}; {hint}")
    return known[str(name)]
