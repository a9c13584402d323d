"""Tiny data and models of three kinds that the command line's tests share."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from ancestral.cli import main
from ancestral.quickstart import digits

SMALL = [
    "--recipe",
    "any-order",
    "--steps",
    "3",
    "--set",
    "width=16",
    "--set",
    "depth=1",
    "--set",
    "heads=2",
    "--quiet",
]


def make(folder: Path) -> None:
    """Digits, a table and a text, and a model of each, made by the command line itself."""
    items = digits()[1].take(slice(0, 64))
    items.save(folder / "digits.npz")
    items.take(slice(0, 5)).save(folder / "pictures")
    draw = random.Random(0)
    rows = [f"{draw.choice(['Female', 'Male'])},{draw.randint(18, 70)},{draw.choice('ab')}" for _ in range(60)]
    (folder / "people.csv").write_text("sex,age,group\n" + "\n".join(rows) + "\n")
    (folder / "gaps.csv").write_text("sex,age,group\nFemale,,a\n,30,\n")
    (folder / "novel.txt").write_text("It was a dark and stormy night. " * 30)
    text = ["--recipe", "gpt", "--set", "length=32", *SMALL[2:]]
    for name, options in (("digits.npz", SMALL), ("people.csv", SMALL), ("novel.txt", text)):
        target = folder / (name.split(".")[0] + ".ancestral")
        assert main(["fit", str(folder / name), "--out", str(target), "--json", *options]) == 0


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command run in this process."""
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def answer(capsys, *arguments):
    """The JSON of a command that succeeds."""
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def sentence(capsys, *arguments, code: int = 2) -> str:
    """The one sentence of a command that is refused; it prints nothing else."""
    found, out, err = run(capsys, *arguments)
    assert found == code and out == ""
    lines = err.strip().split("\n")
    assert len(lines) == 1 and lines[0].startswith("ancestral: "), err
    assert len(lines[0]) < 700 and not re.search(r"\bException\b|\bError\b", lines[0]), err
    return lines[0].removeprefix("ancestral: ")


def shell(*arguments, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    command = [sys.executable, "-m", "ancestral.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)


def pixels(path: Path) -> np.ndarray:
    """The images of an npz."""
    return np.load(path)["images"]
