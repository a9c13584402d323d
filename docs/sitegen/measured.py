"""Recorded results of the benchmarks as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def _flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in content.items():
        label = f"{prefix}{name}"
        rows += _flat(value, f"{label}: ") if isinstance(value, Mapping) else [(label, value)]
    return rows


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, list):
        return ", ".join(map(_cell, value)) or "none"
    return str(value).replace("|", r"\|").replace("\n", " ")


def result_block(result: Mapping[str, Any], stale: bool = False) -> str:
    """One result: verdict, our numbers and the peers', and all that they depend on."""
    parts = [f"Verdict: **{result['verdict']}** ({result.get('date', 'no date')})."]
    if stale:
        parts.append("Measured on an earlier version of the recipe.")
    published = result.get("published")
    if isinstance(published, Mapping):
        published = ", ".join(f"{k} {_cell(v)}" for k, v in _flat(published))
    if published:
        parts.append(f"Goal or published value: {_cell(published)}.")
    rows = [(label, "ancestral", value) for label, value in _flat(result.get("ours", {}))]
    for peer, numbers in result.get("peers", {}).items():
        if isinstance(numbers, Mapping):
            rows += [(label, peer, value) for label, value in _flat(numbers)]
        else:
            rows.append((peer, "beside it", numbers))
    rows += [(label, "", value) for label, value in _flat(result.get("extra", {}))]
    table = "\n".join(f"| {label} | {who} | {_cell(value)} |" for label, who, value in rows)
    parts.append("| quantity | of | value |\n|---|---|---|\n" + table)
    machine, versions = result.get("machine", {}), result.get("versions", {})
    facts = {
        "scale": result.get("scale"),
        "machine": f"{machine.get('processor', '?')}, {machine.get('cores', '?')} cores" if machine else None,
        "load while measuring": _cell(machine["load"]) if machine.get("load") else None,
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
        "revision": result.get("revision"),
    }
    parts.append("\n".join(f"- {name}: {value}" for name, value in facts.items() if value))
    if result.get("command"):
        parts.append(f"```text\n{result['command']}\n```")
    return "\n\n".join(parts)


def measured_page(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Every recorded result."""
    head = (
        "# Measurements\n\nGenerated from `benchmarks/results/`, misses included. *Reproduced* means that the goal or "
        "the paper's claim was met at the stated scale, *not reproduced* that it was measured and missed.\n"
    )
    if not found:
        return head + "\nNo result is recorded yet.\n"
    return head + "".join(f"\n## {name}\n\n{result_block(result)}\n" for name, result in found.items())
