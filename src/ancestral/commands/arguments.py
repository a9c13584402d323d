"""Kinds of arguments that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import UseAppendAction, arg

MaybePath = Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="(optional)")]
MaybeText = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="(optional)")]
MaybeFloat = Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="(optional)")]
MaybeInt = Annotated[int | None, arg(metavar="INT", help_behavior_hint="(optional)")]
MaybeTokenizer = Annotated[str | None, arg(metavar="PATH|NAME", help_behavior_hint="(optional)")]
Settings = Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="NAME=VALUE")]
Data = Annotated[Path, arg(metavar="DATA")]
RecipeFile = Annotated[Path | None, arg(metavar="FILE.py", help_behavior_hint="(optional)")]
Saved = Annotated[Path, arg(metavar="MODEL")]
