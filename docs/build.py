"""Generate the pages that derive from the code, then build the site into ``site/``; any warning is an error.

Written pages are in ``docs/pages``; a line ``<!-- generated: NAME -->`` in them is replaced. Nothing generated is
committed: pages go to ``build/site-source``, the site to ``site``.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES, WORK, SITE = ROOT / "docs" / "pages", ROOT / "build" / "site-source", ROOT / "site"
sys.path.insert(0, str(Path(__file__).resolve().parent))

from sitegen.decoders import decoders  # noqa: E402
from sitegen.docstrings import markdown  # noqa: E402
from sitegen.images import images  # noqa: E402
from sitegen.measured import measured_page  # noqa: E402
from sitegen.pictures import orders_svg  # noqa: E402
from sitegen.published import published_table  # noqa: E402
from sitegen.reference import write_reference  # noqa: E402
from sitegen.systems import write_systems  # noqa: E402

from ancestral.cli import COMMANDS  # noqa: E402
from ancestral.laws import LAWS  # noqa: E402
from ancestral.recipes.registry import catalogue  # noqa: E402
from ancestral.recipes.results import read_results  # noqa: E402


def laws_table() -> str:
    """The laws and what they say, from their docstrings."""
    rows = []
    for name, law in LAWS.items():
        about = markdown(inspect.getdoc(law)).split("\n\n")[0].replace("\n", " ").replace("|", r"\|")
        rows.append(f"| `{name}` | {about} |")
    return "| law | what is tested |\n|---|---|\n" + "\n".join(rows)


def _help_of(command: str) -> str:
    """What ``ancestral COMMAND --help`` prints on a terminal 80 wide, without colours."""
    settings = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"}
    code = f"import sys; from ancestral.cli import main; sys.exit(main({[command, '--help']!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=settings, timeout=120)
    if done.returncode:
        raise RuntimeError(f"`ancestral {command} --help` ends with {done.returncode}: {done.stderr.decode()}")
    return done.stdout.decode("utf-8").strip()


def command_help() -> str:
    """The help of every command, as the terminal shows it."""
    return "\n\n".join(f"## {name}\n\n```text\n{_help_of(name)}\n```" for name in COMMANDS)


def decoder_tables() -> str:
    """Decoders side by side, as recorded."""
    return decoders(read_results())


def image_tables() -> str:
    """Image systems side by side, as recorded, with the samples that lie beside the page."""
    pictures = {path.stem.removeprefix("samples_"): path.name for path in PAGES.glob("samples_*.png")}
    return images(read_results(), pictures)


GENERATED = {
    "laws": laws_table,
    "help": command_help,
    "published": published_table,
    "decoders": decoder_tables,
    "images": image_tables,
}
"""What written pages can ask for."""


def generate(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Write all pages, written and generated, into ``folder``; returns the generated parts of the navigation."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PAGES, folder)
    for page in folder.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        for name, make in GENERATED.items():
            mark = f"<!-- generated: {name} -->"
            if mark in text:
                text = text.replace(mark, make())
        page.write_text(text, encoding="utf-8")
    found = read_results()
    (folder / "orders.svg").write_text(orders_svg(), encoding="utf-8")
    (folder / "measurements.md").write_text(measured_page(found), encoding="utf-8")
    return {
        "Systems": write_systems(folder, list(catalogue().values()), found),
        "API": write_reference(folder / "reference"),
    }


def toml(value: Any) -> str:
    """Strings, numbers, lists and tables as TOML on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def configuration(parts: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """``zensical.toml`` with the generated pages in its navigation, below the entries that name them."""
    settings = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    nav = []
    for entry in settings["nav"]:
        ((title, target),) = entry.items()
        pages = [{name: path} for name, path in parts.get(title, ())]
        nav.append({title: [*target, *pages]} if pages else entry)
    settings |= {"nav": nav, "docs_dir": WORK.name, "site_dir": "site"}
    return "[project]\n" + "".join(f"{name} = {toml(value)}\n" for name, value in settings.items())


def main() -> int:
    """Write the pages, run the site builder, and fail on its warnings."""
    config = WORK.with_name("zensical.toml")
    config.parent.mkdir(exist_ok=True)
    config.write_text(configuration(generate(WORK)), encoding="utf-8")
    builder = Path(sys.executable).with_name("zensical")
    done = subprocess.run(
        [str(builder), "build", "--clean", "--strict", "--config-file", str(config)],
        cwd=config.parent,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "NO_COLOR": "1"},
    )
    said = (done.stdout + done.stderr).strip()
    print(said)
    if done.returncode or "Warning" in said or "No issues found" not in said:
        print("the site was not built: see the warnings above", file=sys.stderr)
        return 1
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.move(config.with_name("site"), SITE)
    print(f"{len(list(SITE.rglob('*.html')))} pages in {SITE.relative_to(ROOT)}/index.html and beside it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
