"""Recorded results of the benchmarks as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def _flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in content.items():
        label = f"{prefix}{name}"
        rows += _flat(value, f"{label}: ") if isinstance(value, Mapping) else [(label, value)]
    return rows


def cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, list):
        return ", ".join(map(cell, value)) or "none"
    return str(value).replace("|", r"\|").replace("\n", " ")


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of ready cells."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def said(result: Mapping[str, Any], more: str = "") -> str:
    """When, on what and how a result was measured, ``more`` about it, and its verdict, in a paragraph."""
    processor = result.get("machine", {}).get("processor", "a processor")
    parts = [f"Measured {result.get('date', '')}: {result.get('scale', '')}; {processor}.", more]
    parts.append(f"`{result['command']}` repeats it. Verdict: **{result['verdict']}**.")
    return " ".join(part for part in parts if part)


def result_block(result: Mapping[str, Any], stale: bool = False) -> str:
    """One result: verdict, our numbers and the peers', and all that they depend on."""
    parts = [f"Verdict: **{result['verdict']}** ({result.get('date', 'no date')})."]
    if stale:
        parts.append("Measured on an earlier version of the recipe.")
    published = result.get("published")
    if isinstance(published, Mapping):
        published = ", ".join(f"{k} {cell(v)}" for k, v in _flat(published))
    if published:
        parts.append(f"Goal or published value: {cell(published)}.")
    rows = [(label, "ancestral", value) for label, value in _flat(result.get("ours", {}))]
    for peer, numbers in result.get("peers", {}).items():
        if isinstance(numbers, Mapping):
            rows += [(label, peer, value) for label, value in _flat(numbers)]
        else:
            rows.append((peer, "beside it", numbers))
    rows += [(label, "", value) for label, value in _flat(result.get("extra", {}))]
    table = "\n".join(f"| {label} | {who} | {cell(value)} |" for label, who, value in rows)
    parts.append("| quantity | of | value |\n|---|---|---|\n" + table)
    machine, versions = result.get("machine", {}), result.get("versions", {})
    facts = {
        "scale": result.get("scale"),
        "machine": f"{machine.get('processor', '?')}, {machine.get('cores', '?')} cores" if machine else None,
        "load while measuring": cell(machine["load"]) if machine.get("load") else None,
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
