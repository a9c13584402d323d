"""Write the outcome of a benchmark to ``benchmarks/results/<name>.json``, with all that it depends on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ancestral.files import write_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
VERDICTS = ("reproduced", "not reproduced", "not tested")


def record(
    name: str,
    ours: Mapping[str, Any],
    peers: Mapping[str, Any] | None = None,
    *,
    scale: str,
    verdict: str,
    published: Mapping[str, Any] | str | None = None,
    command: str | None = None,
    extra: Mapping[str, Any] | None = None,
    packages: Sequence[str] = (),
    recipes: Mapping[str, str] | None = None,
    folder: Path = RESULTS,
) -> Path:
    """Write one result file, whole or not at all.

    Args:
        name: of the file; for a recipe's claim, its id.
        ours: numbers measured with ancestral, their units in the names.
        peers: the same numbers of other software, measured in the same run.
        scale: data, sizes and budget of the measurement, in words.
        verdict: one of ``VERDICTS``; "reproduced" means that the goal or the paper's claim was met.
        published: what the paper reports, and at what scale.
        command: that repeats it; by default the running script with its arguments.
        extra: anything else worth keeping.
        packages: further packages whose versions matter.
        recipes: fingerprints of the recipes as they were when measured, by id; by default today's.
        folder: where the file goes.

    Returns:
        The file.

    Raises:
        ValueError: another verdict, or numbers that JSON cannot hold.
        DataError: the place cannot be written.
    """
    if verdict not in VERDICTS:
        raise ValueError(f"verdict {verdict!r} is none of {', '.join(VERDICTS)}")
    content = {
        "name": name,
        "verdict": verdict,
        "ours": dict(ours),
        "peers": dict(peers or {}),
        "published": published,
        "scale": scale,
        "command": shlex.join(map(portable, shlex.split(command))) if command else _command(),
        "extra": dict(extra or {}),
        "recipes": fingerprints(name) if recipes is None else dict(recipes),
        "machine": machine(),
        "versions": versions(packages),
        "revision": _revision(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    json.dumps(content, allow_nan=False)  # refuses what is no JSON before anything is replaced
    target = folder / f"{name}.json"
    write_json(target, content)
    return target


def fingerprints(name: str) -> dict[str, str]:
    """Of the recipes whose claim the result ``name`` is about, so that a change to them shows."""
    from ancestral.recipes.registry import catalogue

    about = (recipe for recipe in catalogue().values() if name in (recipe.id, recipe.claim.benchmark))
    return {recipe.id: recipe.fingerprint for recipe in about}


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory and system."""
    from ancestral.quickstart import processor

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        memory: float | None = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        memory = None
    return {
        "processor": processor(),
        "cores": cores,
        "memory_gib": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "load": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


def versions(packages: Sequence[str] = ()) -> dict[str, str]:
    """Versions of Python, ancestral, torch, numpy and the packages named."""
    found = {"python": platform.python_version()}
    for package in ("ancestral", "torch", "numpy", *packages):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _command() -> str:
    script = Path(sys.argv[0]).resolve()
    shown = script.relative_to(ROOT) if script.is_relative_to(ROOT) else Path(script.name)
    return shlex.join(["python", str(shown), *map(portable, sys.argv[1:])])


def portable(argument: str) -> str:
    """An argument without the absolute path that may stand in it, alone or behind ``--name=``.

    A place in the repository is written relative to it, one elsewhere as if it lay beside it (``../shared/data``).
    """
    name, equals, value = argument.rpartition("=") if argument.startswith("--") else ("", "", argument)
    path = Path(value)
    if not path.is_absolute():
        return argument
    if path.is_relative_to(ROOT):
        return f"{name}{equals}{path.relative_to(ROOT)}"
    common = Path(os.path.commonpath([path, ROOT]))
    outside = path.relative_to(common) if common != Path(common.anchor) else Path(path.name)
    return f"{name}{equals}../{outside.as_posix()}"


def _revision() -> str:
    """The commit, marked if files differ from it; empty outside a repository."""
    try:
        git = ["git", "-C", str(ROOT)]
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, timeout=20)
        status = subprocess.run(
            [*git, "status", "--porcelain", "--", "src"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    if head.returncode:
        return ""
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")
