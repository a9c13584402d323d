"""Pages of the systems, from the recipes' records: catalogue, one page each, bibliography."""

from __future__ import annotations

import inspect
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ancestral.model import Model
from ancestral.recipes.registry import Recipe
from ancestral.recipes.results import outcome, stale, verdict
from ancestral.recipes.toys import toy
from sitegen.docstrings import inline, markdown
from sitegen.measured import result_block
from sitegen.reference import ROOMS

Results = Mapping[str, Mapping[str, Any]]


def built(record: Recipe) -> Model:
    """The untrained model at the size of the tests, on the toy data of the laws."""
    return record(**record.tiny).build(toy(record.toy))


def example(record: Recipe) -> str:
    """Python that runs as it stands, in about a second."""
    arguments = {name: value for name, value in record.tiny.items() if name != "data"}
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    size = f"size = dict({given})  # that of the tests\n" if given else ""
    return (
        "import ancestral\n"
        "from ancestral.recipes.toys import toy\n\n"
        f'data = toy("{record.toy}")  # 256 items so small that all can be counted\n'
        f"{size}"
        f'model = ancestral.fit(data, recipe="{record.id}", epochs=5{", **size" if given else ""})\n'
        "model.sample(3)\n"
        f'model.log_prob(toy("{record.toy}", 8, seed=1)).bits_per_dim()\n'
    )


def cited(record: Recipe) -> str:
    """Authors, title, and where it was published, with a link where that is arXiv."""
    paper = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", record.paper)
    return f"{record.authors.rstrip('.')}. *{record.title.rstrip('.')}*. {paper}".rstrip()


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _part(value: Any) -> str:
    """Class of a part, linked to its entry in the reference if it has one there."""
    kind = type(value)
    home = kind.__module__.removeprefix("ancestral.")
    # The innermost room first: learned tokenizers have a page of their own.
    for room, _ in sorted(ROOMS, key=lambda r: -len(r[0])):
        if home == room or home.startswith(room + "."):
            return f"[{kind.__name__}](../reference/{room.replace('.', '-')}.md#{kind.__name__.lower()})"
    return f"`{kind.__name__}` (in this recipe's file)"


def _about(value: Any) -> str:
    doc = inspect.getdoc(type(value)) or ""
    first = doc.split("\n\n")[0].replace("\n", " ")
    return _cell(inline(first))


def composition(model: Model) -> list[tuple[str, Any]]:
    """The parts that a model is made of, those of nested generators included."""
    rows: list[tuple[str, Any]] = [("tokenizer", model.tokenizer)]
    generator: Any = model.generator
    prefix = ""
    while generator is not None:
        rows += [
            (f"{prefix}order", generator.order),
            (f"{prefix}network", generator.network),
            (f"{prefix}head", generator.head),
        ]
        if not prefix:
            rows += [("objective", generator.objective), ("decoder", model.decoder)]
        inner = getattr(generator.head, "generator", None)
        generator = inner if hasattr(inner, "network") else None
        prefix += "inner "
    return rows


def _abilities(model: Model) -> list[str]:
    generator = model.generator
    if generator.any_order:
        known = "any subset of sites can be known, and conditioning on it is exact"
    else:
        known = "conditioning is exact where the known sites come first in its order, else by importance resampling"
    score = "exact, for its scoring order" if generator.head.exact else "a lower bound"
    return [
        "- verbs: " + ", ".join(f"`{verb}`" for verb in model.verbs()),
        f"- log-probabilities: {score}",
        f"- completion: {known}",
    ]


def recipe_page(record: Recipe, records: Sequence[Recipe], results: Results) -> str:
    """One system, from its record, its docstring, its parts and its recorded result."""
    model = built(record)
    rows = composition(model)
    chain = " → ".join(type(value).__name__ for label, value in rows if not label.startswith("inner"))
    parts = "\n".join(f"| {label} | {_part(value)} | {_about(value)} |" for label, value in rows)
    config = "\n".join(
        f"| `{name}` | `{default!r}` | {f'`{record.tiny[name]!r}`' if name in record.tiny else ''} |"
        for name, default in record.config().items()
    )
    found = outcome(record, results)
    if found:
        measured = result_block(found, stale(record, found))
    else:
        why = f"`benchmarks/{record.claim.benchmark}.py` has recorded no result" if record.claim.benchmark else (
            "no benchmark measures it yet"
        )  # fmt: skip
        measured = f"Verdict: **{verdict(record, results)}**; {why}."
    relatives = [f"- differs from [{record.differs_from}]({record.differs_from}.md)"] if record.differs_from else []
    relatives += [
        f"- [{r.id}]({r.id}.md) differs from it: {inline(r.summary)}" for r in records if r.differs_from == record.id
    ]
    failures = [f"- law *{law}* is declared to fail: {inline(why)}" for law, why in record.xfail.items()]
    sections = [
        f"# {record.id}",
        cited(record) + ".",
        markdown(inspect.getdoc(record.build)),
        f"## Composition\n\n{chain}\n\n| part | here | what it does |\n|---|---|---|\n{parts}",
        "\n".join(_abilities(model)),
        f"## Arguments\n\n| argument | default | in tests |\n|---|---|---|\n{config}",
        f"## Example\n\n```python\n{example(record)}```",
        f"```text\nancestral fit DATA --recipe {record.id} --minutes 10\nancestral check {record.id}\n```",
        f"## Claim\n\n{inline(record.claim.text)[:1].upper()}{inline(record.claim.text)[1:]}.\n\n{measured}",
        "## Known failures\n\n" + "\n".join(failures) if failures else "",
        "## Relatives\n\n" + "\n".join(relatives) if relatives else "",
        f"## The recipe\n\nThe whole of `ancestral/recipes/{record.modality}/{record.path.name}`:\n\n"
        f"```python\n{record.path.read_text(encoding='utf-8').strip()}\n```",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def catalogue_page(records: Sequence[Recipe], results: Results) -> str:
    """All systems: what they do and claim, what they are made of, and their lineage."""
    systems, parts = [], []
    for record in records:
        model = built(record)
        generator = model.generator
        link = f"[{record.id}](recipes/{record.id}.md)"
        systems.append(
            f"| {link} | {record.modality} | {_cell(inline(record.summary))} | {_cell(inline(record.claim.text))} | "
            f"{verdict(record, results)} |"
        )
        chain = (generator.order, generator.network, generator.head, model.decoder)
        names = " | ".join(type(part).__name__ for part in chain)
        parts.append(f"| {link} | {names} | {'any' if generator.any_order else 'first'} |")
    counts = Counter(verdict(record, results) for record in records)
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    sections = [
        f"# Catalogue\n\n{len(records)} systems, generated from the recipes' records. Of their claims: {told}.",
        "| system | for | what it does | claim | verdict |\n|---|---|---|---|---|\n" + "\n".join(systems),
        "## Parts\n\n*Given* says which sites can be known and conditioned on exactly: any, or the first of its order.",
        "| system | order | network | head | decoder | given |\n|---|---|---|---|---|---|\n" + "\n".join(parts),
        "## Lineage\n\nEach system under the one that it differs from least.",
        "\n".join(lineage(records)),
    ]
    return "\n\n".join(sections) + "\n"


def lineage(records: Sequence[Recipe]) -> list[str]:
    """Nested list by ``differs_from``."""
    known = {record.id for record in records}
    children: dict[str, list[Recipe]] = defaultdict(list)
    for record in records:
        children[record.differs_from if record.differs_from in known else ""].append(record)
    lines: list[str] = []

    def below(parent: str, depth: int, path: tuple[str, ...]) -> None:
        for record in children[parent]:
            if record.id in path:
                continue
            lines.append(f"{'    ' * depth}- [{record.id}](recipes/{record.id}.md): {inline(record.title)}")
            below(record.id, depth + 1, (*path, record.id))

    below("", 0, ())
    return lines


def bibliography(records: Sequence[Recipe]) -> str:
    """Papers by first author, each with the systems that follow it."""
    papers: dict[str, list[Recipe]] = defaultdict(list)
    for record in records:
        papers[record.paper or record.id].append(record)
    lines = []
    for same in sorted(papers.values(), key=lambda group: group[0].authors.removeprefix("after ").lower()):
        systems = ", ".join(f"[{record.id}](recipes/{record.id}.md)" for record in same)
        first = min(same, key=lambda record: len(record.title))
        lines.append(f"- {cited(first)}. Here: {systems}.")
    return "# Bibliography\n\n" + "\n".join(lines) + "\n"


def write_systems(folder: Path, records: Sequence[Recipe], results: Results) -> list[tuple[str, str]]:
    """Write all pages into the folder of the docs; returns (title, path) of the systems' pages."""
    (folder / "recipes").mkdir(parents=True, exist_ok=True)
    (folder / "catalogue.md").write_text(catalogue_page(records, results), encoding="utf-8")
    (folder / "bibliography.md").write_text(bibliography(records), encoding="utf-8")
    for record in records:
        page = recipe_page(record, records, results)
        (folder / "recipes" / f"{record.id}.md").write_text(page, encoding="utf-8")
    return [(record.id, f"recipes/{record.id}.md") for record in records]
