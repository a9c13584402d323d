"""The command that runs a study: study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from ancestral.commands.arguments import Settings


def study(
    id: Positional[Annotated[str, arg(metavar="ID")]],
    set_: Settings = (),
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="RESULTS.json", help_behavior_hint="(optional)")] = None,
    json: bool = False,
) -> None:
    """Run a study, an experiment on models, and print what it finds.

    Args:
        id: of the study; `ancestral recipes --modality study` lists them.
        set_: an argument of the study (generations=5).
        out: write everything it found as JSON.
        json: print everything as JSON.
    """
    import inspect

    from ancestral.commands import console
    from ancestral.errors import DataError
    from ancestral.files import write_json
    from ancestral.recipes.registry import studies

    known = studies()
    if id not in known:
        raise DataError(f"there is no study {id!r}; there are {', '.join(known)}")
    record = known[id]
    defaults = {n: p.default for n, p in inspect.signature(record.build).parameters.items()}
    config = record.config(**console.choose(set_, {f"of study {id}": defaults}))
    if out is not None:
        console.reserve(out, folder=False)
    run: Any = record.build
    found: dict[str, Any] = run(**config)
    content = {"study": id, "config": config, **found}
    if out is not None:
        write_json(out, content)
    if json:
        console.emit(content)
        return
    console.facts([(name, value) for name, value in found.items() if isinstance(value, str | float | int)])
    for name, rows in found.items():
        if isinstance(rows, dict):
            console.stdout().print(f"\n{name}", markup=False)
            listed = [(str(k), ", ".join(f"{x:.4g}" for x in v)) for k, v in rows.items() if isinstance(v, list)]
            nested = [(str(k), _words(v)) for k, v in rows.items() if isinstance(v, dict)]
            if listed or nested:
                console.facts(listed + nested)


def _words(row: dict[str, Any]) -> str:
    """A row of a table in one line: its numbers and truth values by name."""
    shown = [(k, f"{v:.4g}" if isinstance(v, float) else str(v)) for k, v in row.items() if not isinstance(v, str)]
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown)
