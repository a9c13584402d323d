"""The table of authors' checkpoints that can be loaded."""

from __future__ import annotations

from ancestral.published import evidence, systems
from sitegen.docstrings import inline


def published_table() -> str:
    """Every published system, what its mapping was compared with, and which outputs were."""
    rows = []
    for system in systems():
        about, against, checked = (inline(text).replace("|", r"\|") for text in evidence(system))
        rows.append(f"| `{system}` | {about} | {checked} | {against} |")
    head = "| name | the authors' class | outputs that agree to 1e-4 | compared with |\n|---|---|---|---|\n"
    return head + "\n".join(rows)
