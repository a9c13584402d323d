"""What benchmarks have recorded about the recipes' claims; only a source checkout has the files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ancestral.recipes.registry import Recipe

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"


def read_results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """All result files by name; none where there is no such folder."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def outcome(record: Recipe, results: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The recorded result of the recipe's claim: its own file, else that of its benchmark."""
    return results.get(record.id) or (results.get(record.claim.benchmark) if record.claim.benchmark else None)


def stale(record: Recipe, result: Mapping[str, Any]) -> bool:
    """Whether the recipe has changed since the result was recorded; False for results that do not tell."""
    known = result.get("recipes", {}).get(record.id)
    return known is not None and known != record.fingerprint


def verdict(record: Recipe, results: Mapping[str, Mapping[str, Any]]) -> str:
    """The verdict on the recipe's claim in words, with a remark if the recipe has changed since."""
    found = outcome(record, results)
    if not found:
        return "not tested"
    return str(found["verdict"]) + (" (measured on an earlier version)" if stale(record, found) else "")
