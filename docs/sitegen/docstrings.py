"""Docstrings as Markdown, and signatures as readers write them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

LISTS = ("Args", "Attributes", "Raises")
TEXTS = ("Returns", "Reference", "References", "Note", "Notes", "Example", "Examples", "Shapes")
_ROLE = re.compile(r":\w+:`~?([^`]+)`")
_HEADING = re.compile(rf"^({'|'.join(LISTS + TEXTS)}):$")
_ENTRY = re.compile(r"^([\w*][\w*., ]*?):\s+(.*)$")


def inline(text: str) -> str:
    """Roles and double backticks of one paragraph as code; nothing outside code is taken for HTML or emphasis."""
    text = _ROLE.sub(r"``\1``", text)
    pieces = re.split(r"(``.+?``|`[^`]+`|(?<![\w*])\*\w[\w -]*\*(?![\w*]))", text, flags=re.S)
    plain = {"<": "&lt;", "*": r"\*", "_": r"\_", "[": r"\[", "]": r"\]"}
    for index in range(0, len(pieces), 2):
        pieces[index] = re.sub(r"[<*_\[\]]", lambda found: plain[found.group()], pieces[index])
    for index in range(1, len(pieces), 2):
        if pieces[index].startswith("`"):
            pieces[index] = "`" + pieces[index].strip("`") + "`"
    return "".join(pieces)


def _width(line: str) -> int:
    return len(line) - len(line.lstrip())


def _dedent(lines: list[str]) -> list[str]:
    margin = min((_width(line) for line in lines if line.strip()), default=0)
    return [line[margin:] for line in lines]


def _fence(lines: list[str]) -> str:
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return "```text\n" + "\n".join(_dedent(lines)) + "\n```"


def prose(lines: list[str]) -> list[str]:
    """Paragraphs, literal blocks (indented, after ``::``) and tables of plain text, as Markdown blocks."""
    blocks: list[str] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        if not line.strip():
            index += 1
            continue
        end = index
        if line.startswith("===") or line.startswith("  "):
            while end < len(lines) and (lines[end].strip() or (end + 1 < len(lines) and lines[end + 1][:2] == "  ")):
                end += 1
            blocks.append(_fence(lines[index:end]))
        else:
            while end < len(lines) and lines[end].strip():
                end += 1
            text = "\n".join(lines[index:end])
            blocks.append(inline(re.sub(r"::$", ":", text)))
        index = end
    return blocks


def _entries(lines: list[str]) -> list[str]:
    """``name: text`` with indented continuations as a list."""
    found: list[str] = []
    for line in _dedent(lines):
        entry = _ENTRY.match(line) if line[:1] != " " else None
        if entry:
            names = ", ".join(f"`{name.strip()}`" for name in entry.group(1).split(","))
            found.append(f"- {names}: {entry.group(2)}")
        elif line.strip() and found:
            found[-1] += " " + line.strip()
        elif line.strip():
            found.append("- " + line.strip())
    heads = [re.match(r"- (?:`[^`]+`(?:, )?)+: ", entry) for entry in found]
    return [e if h is None else h.group() + inline(e[h.end() :]) for e, h in zip(found, heads)]


def markdown(doc: str | None) -> str:
    """A cleaned docstring (summary, paragraphs, Args, Returns, Raises, Reference ...) as Markdown."""
    lines = inspect.cleandoc(doc or "").split("\n")
    blocks: list[str] = []
    begin = index = 0
    while index <= len(lines):
        heading = _HEADING.match(lines[index]) if index < len(lines) else None
        if index < len(lines) and heading is None:
            index += 1
            continue
        blocks += prose(lines[begin:index])
        if heading is None:
            break
        end = index + 1
        while end < len(lines) and (not lines[end].strip() or lines[end].startswith("    ")):
            end += 1
        body = lines[index + 1 : end]
        blocks.append(f"**{heading.group(1)}**")
        if heading.group(1) in LISTS:
            blocks.append("\n".join(_entries(body)))
        else:
            blocks += prose(_dedent(body))
        begin = index = end
    return "\n\n".join(blocks)


def _annotation(value: Any) -> str:
    text = value if isinstance(value, str) else inspect.formatannotation(value)
    return re.sub(r"\b(?:ancestral\.[\w.]+|torch|typing|collections\.abc|pathlib)\.(?=\w)", "", text)


def _default(value: Any) -> str:
    if inspect.isfunction(value) or inspect.isclass(value):
        return value.__name__
    text = repr(value)
    return "..." if " at 0x" in text or text.startswith("<") else text


def signature(name: str, value: Callable[..., Any]) -> str:
    """``name(argument: type = default, ...) -> type``, an argument a line where it is long."""
    try:
        found = inspect.signature(value)
    except (ValueError, TypeError):
        return name
    parts: list[str] = []
    kinds = [p.kind for p in found.parameters.values()]
    for p in found.parameters.values():
        if p.name == "self" and not parts:
            kinds = kinds[1:]
            continue
        if p.kind is p.KEYWORD_ONLY and "*" not in parts and p.VAR_POSITIONAL not in kinds:
            parts.append("*")
        star = "*" if p.kind is p.VAR_POSITIONAL else "**" if p.kind is p.VAR_KEYWORD else ""
        text = star + p.name
        if p.annotation is not p.empty:
            text += f": {_annotation(p.annotation)}"
        if p.default is not p.empty:
            text += (" = " if ":" in text else "=") + _default(p.default)
        parts.append(text)
    back = ""
    if not inspect.isclass(value) and found.return_annotation is not found.empty:
        back = f" -> {_annotation(found.return_annotation)}"
    short = f"{name}({', '.join(parts)}){back}"
    if len(short) <= 96:
        return short
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){back}"
