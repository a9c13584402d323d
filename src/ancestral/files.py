"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ancestral.errors import DataError


@contextlib.contextmanager
def atomic_path(target: str | Path, directory: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that replaces it on success and vanishes on failure.

    Args:
        target: the final path; its parent is made if missing.
        directory: yield a new empty folder instead of a file name; an existing folder at ``target`` is
            replaced as a whole.

    Raises:
        DataError: the place cannot be written.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise DataError(
            f"cannot write {target}: {error.strerror or error}; choose a folder you may write to"
        ) from error
    try:
        inner = scratch / target.name
        if directory:
            inner.mkdir()
        yield inner
        try:
            if target.is_dir() and not directory:
                raise DataError(f"cannot write {target}: it is a folder; give a file name")
            if directory and target.exists():
                if not target.is_dir():
                    raise DataError(f"cannot write the folder {target}: a file of that name exists; move it away")
                os.replace(target, scratch / "previous")
            os.replace(inner, target)
        except OSError as error:
            raise DataError(
                f"cannot write {target}: {error.strerror or error}; choose a folder you may write to"
            ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
