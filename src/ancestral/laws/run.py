"""All laws by name, and running them over a recipe."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ancestral.errors import DataError
from ancestral.laws.chances import bounds, completion, normalisation, sampling
from ancestral.laws.exam import (
    Exam,
    LawError,
    NotApplicable,
)
from ancestral.laws.features import causality, incremental
from ancestral.laws.verbs import batches, coding, resume, saving
from ancestral.recipes.registry import Recipe, find

LAWS: dict[str, Callable[[Exam], None]] = {
    "causality": causality,
    "incremental": incremental,
    "normalisation": normalisation,
    "sampling": sampling,
    "coding": coding,
    "completion": completion,
    "saving": saving,
    "resume": resume,
    "batches": batches,
    "bounds": bounds,
}
"""The laws by name; ``xfail=`` of a recipe takes these names."""


@dataclass(frozen=True)
class LawResult:
    """What became of one law.

    Attributes:
        name: of the law.
        status: "ok"; "failed"; "xfail", failed as the recipe declares; or "not applicable".
        detail: why, empty for "ok".
        seconds: time taken.
    """

    name: str
    status: Literal["ok", "failed", "xfail", "not applicable"]
    detail: str
    seconds: float


def examine(exam: Exam, name: str) -> LawResult:
    """Run one law; errors of any kind count as failures."""
    began = time.perf_counter()
    declared = exam.recipe.xfail.get(name)
    status: Literal["ok", "failed", "xfail", "not applicable"] = "ok"
    detail = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            LAWS[name](exam)
    except NotApplicable as reason:
        status, detail = "not applicable", str(reason)
    except Exception as error:
        status = "failed" if declared is None else "xfail"
        detail = str(error) if isinstance(error, LawError) else f"{type(error).__name__}: {error}"
    if status == "ok" and declared is not None:
        status, detail = "failed", f"the recipe declares that this law fails ({declared}), and it holds; drop the xfail"
    return LawResult(name, status, detail, time.perf_counter() - began)


def check(recipe: Recipe | str | Path, laws: tuple[str, ...] = tuple(LAWS)) -> list[LawResult]:
    """Run the laws over a recipe: its record, its id, or a Python file that defines it.

    Raises:
        DataError: no such recipe, or no such law.
    """
    record = recipe if isinstance(recipe, Recipe) else find(recipe)
    for name in [*laws, *record.xfail]:
        if name not in LAWS:
            raise DataError(f"there is no law {name!r}; the laws are {', '.join(LAWS)}")
    exam = Exam(record)
    return [examine(exam, name) for name in laws]
