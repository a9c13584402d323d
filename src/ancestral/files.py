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
def atomic_path(target: str | Path, directory: bool = False, overwrite: bool = True, ours: str = "") -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that replaces it on success and vanishes on failure.

    Args:
        target: the final path; its parent is made if missing.
        directory: yield a new empty folder instead of a file name; an existing folder at ``target`` is
            replaced as a whole.
        overwrite: whether a folder that is not empty may be replaced.
        ours: name of a file that marks a folder which may be replaced in any case.

    Raises:
        DataError: the place cannot be written, or somebody's files are there.
    """
    target = Path(target)
    if directory and not overwrite:
        require_vacant(target, "choose another place, or say overwrite=True to replace it with all that is in it", ours)
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


def require_vacant(folder: Path, hint: str, ours: str = "") -> None:
    """Refuse to replace a folder with files in it, unless one is called ``ours``.

    Args:
        folder: where something is to be written.
        hint: what to do instead.
        ours: name of a file that only we write.

    Raises:
        DataError: it is not empty.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (ours and (folder / ours).is_file()):
        raise DataError(f"the folder {folder} exists and is not empty; {hint}")


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
