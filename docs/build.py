"""Generate the pages that derive from the code, then build the site into ``site/``; any warning is an error."""

from __future__ import annotations

import importlib
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt

from ancestral.order import Order
from ancestral.recipes.registry import Recipe, catalogue

ROOT = Path(__file__).resolve().parent.parent
PAGES, BUILT = ROOT / "docs" / "pages", ROOT / "build" / "docs"
RESULTS = ROOT / "benchmarks" / "results"
MODULES = (
    "api",
    "model",
    "scores",
    "space",
    "order",
    "generator",
    "objectives",
    "networks.base",
    "networks.transformer",
    "networks.masked_convolution",
    "networks.masked_dense",
    "networks.convolution",
    "networks.recurrent",
    "heads.base",
    "heads.categorical",
    "heads.gaussian",
    "heads.nested",
    "decoding.walk",
    "decoding.decoders",
    "decoding.complete",
    "coding.codec",
    "coding.streams",
    "coding.container",
    "training.config",
    "training.source",
    "tokenizers.base",
    "recipes.registry",
    "errors",
)


def orders_picture(path: Path) -> None:
    """Heat maps of the ranks on an 8 x 8 grid."""
    orders = {
        "raster": Order.raster(64),
        "random": Order.random(64),
        "hilbert": Order.hilbert(8, 8),
        "frequency": Order.frequency(8, 8),
        "neighbour": Order.neighbour(8, 8),
        "cells": Order.cells(8, 8, 4),
        "parallel": Order.parallel(8, 8, 2),
        "masks": Order.masks(64, 8),
        "frames": Order.frames(8, 8),
        "single": Order.single(64),
    }
    figure, axes = plt.subplots(2, 5, figsize=(10, 4.6), layout="constrained")
    for axis, (name, order) in zip(axes.flat, orders.items(), strict=True):
        axis.imshow(order.rank.reshape(8, 8), cmap="viridis", vmin=0)
        axis.set_title(f"{name}: {order.n_sets} set{'s' if order.n_sets > 1 else ''}", fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.savefig(path)
    plt.close(figure)


def result_of(name: str) -> dict[str, object] | None:
    """The recorded result of a benchmark, if there is one."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if name and path.exists() else None


def recipe_page(record: Recipe) -> str:
    """One system: docstring, citation, configuration, claim and result."""
    config = "\n".join(f"| `{k}` | `{v!r}` | `{record.tiny.get(k, v)!r}` |" for k, v in record.config().items())
    outcome = result_of(record.id) or result_of(record.claim.benchmark)
    verdict = f"**{outcome['verdict']}**" if outcome else "not tested"
    known = "".join(f"- law *{law}* is known to fail: {why}\n" for law, why in record.xfail.items())
    relative = f"Closest relative: [{record.differs_from}]({record.differs_from}.md)." if record.differs_from else ""
    paper = record.paper
    if paper.startswith("arXiv:"):
        paper = f"[{paper}](https://arxiv.org/abs/{paper[6:]})"
    return f"""# {record.id}

{record.title}. {record.authors}. {paper}

```text
{inspect.getdoc(record.build)}
```

| argument | default | tiny |
|---|---|---|
{config}

```text
ancestral fit DATA --recipe {record.id}
```

**Claim.** {record.claim.text}

**Verdict.** {verdict}

{known}
{relative}
"""


def catalogue_page(records: list[Recipe]) -> str:
    """The table of all systems."""
    rows = []
    for r in records:
        outcome = result_of(r.id) or result_of(r.claim.benchmark)
        verdict = outcome["verdict"] if outcome else "not tested"
        rows.append(f"| [{r.id}](recipes/{r.id}.md) | {r.modality} | {r.summary} | {r.claim.text} | {verdict} |")
    return (
        "# Catalogue\n\nGenerated from the recipes' own records; misses are shown like hits.\n\n"
        "| id | for | what it does | claim | verdict |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def bibliography(records: list[Recipe]) -> str:
    """Papers of all systems."""
    lines = [f"- {r.authors}. *{r.title}*. {r.paper} ({r.id})" for r in sorted(records, key=lambda r: r.authors)]
    return "# Bibliography\n\n" + "\n".join(lines) + "\n"


def reference() -> str:
    """Public classes and functions with their signatures and docstrings."""
    parts = ["# API reference\n"]
    for name in MODULES:
        module = importlib.import_module(f"ancestral.{name}")
        parts.append(f"\n## ancestral.{name}\n\n{inspect.getdoc(module) or ''}\n")
        for label, value in vars(module).items():
            if label.startswith("_") or getattr(value, "__module__", "") != module.__name__:
                continue
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            try:
                signature = str(inspect.signature(value))
            except (ValueError, TypeError):
                signature = ""
            parts.append(f"\n### {label}\n\n```text\n{label}{signature}\n\n{inspect.getdoc(value) or ''}\n```\n")
            if inspect.isclass(value):
                for method, function in vars(value).items():
                    function = getattr(function, "__func__", function)
                    if method.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
                        continue
                    about = inspect.getdoc(function)
                    parts.append(f"\n```text\n{label}.{method}{inspect.signature(function)}\n\n{about}\n```\n")
    return "".join(parts)


def main() -> int:
    """Write the pages, run the site builder, and fail on its warnings."""
    shutil.rmtree(BUILT, ignore_errors=True)
    shutil.copytree(PAGES, BUILT)
    (BUILT / "recipes").mkdir()
    records = list(catalogue().values())
    orders_picture(BUILT / "orders.svg")
    (BUILT / "catalogue.md").write_text(catalogue_page(records), encoding="utf-8")
    (BUILT / "bibliography.md").write_text(bibliography(records), encoding="utf-8")
    (BUILT / "reference.md").write_text(reference(), encoding="utf-8")
    for record in records:
        (BUILT / "recipes" / f"{record.id}.md").write_text(recipe_page(record), encoding="utf-8")
    builder = Path(sys.executable).with_name("zensical")
    done = subprocess.run(
        [str(builder), "build", "--clean", "--config-file", str(ROOT / "zensical.toml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    said = done.stdout + done.stderr
    print(said.strip())
    complaints = [line for line in said.splitlines() if "warning" in line.lower() or "error" in line.lower()]
    complaints = [line for line in complaints if "No issues" not in line]
    if done.returncode or complaints:
        print(f"the site has {len(complaints)} warnings or errors", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
