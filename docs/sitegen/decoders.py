"""Decoders compared: tables from what the surveys' studies measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sitegen.measured import cell, markdown_table, said

Rows = Sequence[tuple[str, Mapping[str, Any]]]

COLUMNS = {
    "symbols_per_call": "symbols per call of the target",
    "calls": "calls per symbol",
    "draft_calls": "draft calls per symbol",
    "layers": "layers per symbol",
    "acceptance": "accepted",
    "cpu_seconds": "CPU seconds",
    "nats_per_symbol": "nats per symbol under the target",
}
"""What a table shows, if any of its rows has it."""


def kept(row: Mapping[str, Any]) -> str:
    """What is known of the distribution of a decoder's texts."""
    if "p_value" in row:
        return f"the model's (chi-square test: p = {row['p_value']:.2g})"
    if "equals_greedy" in row:
        return "the greedy texts" if row["equals_greedy"] else "**not** the greedy texts"
    return "the model's" if row.get("exact") else "another"


def table(head: Sequence[str], rows: Rows, names: Sequence[str]) -> str:
    """Markdown, a line per row: the ``names`` that it has, the columns that are known, and what is drawn."""
    shown = [key for key in COLUMNS if any(key in row for _, row in rows)]
    titles = [*head, *(COLUMNS[key] for key in shown), "what is drawn"]
    lines = []
    for label, row in rows:
        cells = [str(row.get(name, label)) for name in names]
        cells += [cell(row[key]) if key in row else "" for key in shown]
        lines.append([*cells, kept(row)])
    return markdown_table(titles, lines)


def _measured(result: Mapping[str, Any]) -> str:
    return said(result, f"The target needs {result['ours']['bits_per_byte']:.2f} bits per byte of held-out text.")


def decoders(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Both comparisons, or that they are not recorded."""
    parts = []
    result = found.get("speculative-survey")
    parts.append("## Drafters and refiners")
    if result is None:
        parts.append("`benchmarks/decoding/survey.py` has recorded no result.")
    else:
        ours = result["ours"]
        plain = [(name, {"drafter": "none", "refiner": name, "calls": 1.0, "exact": name == "sampling",
                         **({"equals_greedy": True} if name == "greedy" else {}), **row})
                 for name, row in ours["plain"].items()]  # fmt: skip
        parts += [
            _measured(result),
            table(("drafter", "refiner"), [*plain, *ours["pairs"].items()], ("drafter", "refiner")),
        ]
    result = found.get("survey-llm-acceleration")
    parts.append("## Speculation, early exit, masks")
    if result is None:
        parts.append("`benchmarks/decoding/survey.py` has recorded no result.")
    else:
        rows = [(name, {"way": name, **row}) for name, row in result["ours"]["ways"].items()]
        parts += [_measured(result), table(("group", "way"), rows, ("group", "way"))]
    return "\n\n".join(parts)
