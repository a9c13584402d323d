"""What the command line needs to read its arguments and to print its answers; imports nothing heavy."""

from __future__ import annotations

import ast
import difflib
import inspect
import json
import math
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ancestral.errors import DataError, UnsupportedError
from ancestral.files import require_vacant

if TYPE_CHECKING:
    from rich.console import Console

    from ancestral.data import Dataset
    from ancestral.model import Model
    from ancestral.training import History


# -- arguments


def literal(text: str) -> Any:
    """The value that ``text`` writes: JSON, a Python literal, or else the text itself."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return text


def settings(pairs: Sequence[str], flag: str = "--set", instance: str = "width=256") -> dict[str, str]:
    """``name=value`` pairs as a dict of unparsed values.

    Raises:
        DataError: a pair without ``=``, or a name given twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip()
        if not equals or not name:
            raise DataError(f"{flag} {pair!r} is not of the form name=value; write for instance {flag} {instance}")
        if name in found:
            raise DataError(f"{flag} gives {name!r} twice; give it once")
        found[name] = value
    return found


def typed(name: str, text: str, default: Any) -> Any:
    """The value of the setting ``name``, insisted to be of the kind of its ``default`` where that tells.

    Raises:
        DataError: a value of another kind.
    """
    if isinstance(default, str):
        return text
    value = literal(text)
    if default is None or default is inspect.Parameter.empty:
        return value
    kinds: dict[type, tuple[str, tuple[type, ...]]] = {
        bool: ("true or false", (bool,)),
        int: ("a whole number", (int,)),
        float: ("a number", (int, float)),
        tuple: ("a list such as [1,2,4]", (list, tuple)),
        list: ("a list such as [1,2,4]", (list, tuple)),
    }
    words, kind = kinds.get(type(default), ("", ()))
    if isinstance(value, str) and value.lower() in ("true", "false") and type(default) is bool:
        value = value.lower() == "true"
    if words and (not isinstance(value, kind) or (isinstance(value, bool) and type(default) is not bool)):
        raise DataError(f"{name}={text!r} is not {words}; its default is {default!r}")
    return tuple(value) if isinstance(value, list) and isinstance(default, tuple) else value


def choose(pairs: Sequence[str], groups: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Typed settings, each of which must be a name of one of the ``groups`` (title: name: default).

    Raises:
        DataError: an unknown name; close ones are suggested and all are listed.
    """
    defaults: dict[str, Any] = {}
    for names in groups.values():
        for name, default in names.items():
            defaults.setdefault(name, default)
    out = {}
    for name, text in settings(pairs).items():
        if name not in defaults:
            close = difflib.get_close_matches(name, defaults, 1, 0.6)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            known = "; ".join(f"{title}: {', '.join(names)}" for title, names in groups.items() if names)
            raise DataError(f"there is no setting {name!r}{hint}; there are, {known}")
        out[name] = typed(name, text, defaults[name])
    return out


def reader_options(modality: str) -> dict[str, Any]:
    """Name and default of the reader's options."""
    from ancestral import data
    from ancestral.data.tablefiles import read_table

    kinds: dict[str, Any] = {
        "images": data.Images.read,
        "table": read_table,
        "sequences": data.Sequences.read,
        "audio": data.Audio.read,
    }
    reader = kinds.get(modality, data.Text.read)
    return {n: p.default for n, p in inspect.signature(reader).parameters.items() if n != "source"}


def choose_apart(
    pairs: Sequence[str], groups: dict[str, dict[str, Any]], modality: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Typed settings as :func:`choose`, and apart from them those of the reader.

    A name that both know, as ``channels`` of an autoencoder and of images, is that of ``groups``; ``reader.channels``
    is the reader's.

    Args:
        pairs: ``name=value`` each.
        groups: of the recipes and of training.
        modality: of the data.
    """
    reader, prefix = reader_options(modality), "reader."
    marked = [pair.strip().removeprefix(prefix) for pair in pairs if pair.strip().startswith(prefix)]
    plain = [pair for pair in pairs if not pair.strip().startswith(prefix)]
    reading = choose(marked, {f"of reading {modality}": reader})
    taken = {name for names in groups.values() for name in names}
    free = {name: default for name, default in reader.items() if name not in taken}
    options = choose(plain, {**groups, f"of reading {modality}": free})
    for name in free:
        if name in options and name in reading:
            raise DataError(f"--set gives {name!r} twice; give it once")
    return {n: v for n, v in options.items() if n not in free}, reading | {
        n: v for n, v in options.items() if n in free
    }


def load(path: Path, recipe: Path | None = None) -> Model:
    """A saved model of the kind that the commands know; ``recipe`` is the file of its recipe, if that has moved.

    Raises:
        UnsupportedError: a sequential table.
    """
    from ancestral import api
    from ancestral.model import Model

    loaded = api.load(path, recipe)
    if not isinstance(loaded, Model):
        raise UnsupportedError(f"{path} holds a sequential table, which only Python's ancestral.load(...) can use")
    return loaded


def read_for(model: Model, data: Path, pairs: Sequence[str], whole: bool = True) -> Dataset:
    """Data of the model's modality, read with the options that ``--set`` gave.

    Args:
        model: a saved model.
        data: where they are.
        pairs: the options.
        whole: take large tables into memory, rather than leave them to be read chunk by chunk.
    """
    from ancestral.data import read

    found = read(data, model.tokenizer.modality, **reader_settings(model, pairs))
    return found.loaded() if whole else found


def reader_settings(model: Model, pairs: Sequence[str]) -> dict[str, Any]:
    """Options of the reader of the model's kind of data that ``--set`` gave."""
    kind = model.tokenizer.modality
    return choose(pairs, {f"of reading {kind}": reader_options(kind)})


def reserve(target: Path, *, folder: bool, overwrite: bool = True, ours: str = "", modality: str = "") -> None:
    """Make sure, before the work starts, that ``target`` can be written.

    Args:
        target: file or folder to be written later.
        folder: whether it will be a folder, which replaces the one that is there as a whole.
        overwrite: whether what is there may be replaced.
        ours: name of a file that marks a folder as one that we wrote, which may then be replaced.
        modality: of the data that will be written, if it is data.

    Raises:
        DataError: it cannot, its name promises other data, or a folder that may hold somebody's files would be
            replaced.
    """
    if modality:
        from ancestral.data import check_target

        check_target(modality, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".ancestral.", dir=target.parent):
            pass
    except OSError as error:
        raise DataError(
            f"cannot write {target}: {error.strerror or error}; choose a folder you may write to"
        ) from error
    if folder and target.exists():
        if not target.is_dir():
            raise DataError(f"cannot write the folder {target}: a file of that name exists; choose another --out")
        if not overwrite:
            # Commands that write models replace models only, and have no --overwrite.
            more = "" if ours else ", or add --overwrite to replace it with all that is in it"
            require_vacant(target, f"choose another --out{more}", ours)
    elif target.is_dir():
        raise DataError(f"cannot write the file {target}: it is a folder; give a file name with --out")


def label_of(model: Model, text: str | None) -> Any:
    """The class that ``text`` names: a class's name, its number, or ``own`` for the data's own labels."""
    if text is None or text in model.tokenizer.classes:
        return text
    if text == "own":
        return True
    return int(text) if text.isdigit() else text


def known_mask(model: Model, text: str) -> Any:
    """Known sites from a word (top, bottom, left, right, coarse), columns' names, or a mask file.

    Raises:
        DataError: none of these.
    """
    import numpy as np

    from ancestral.inputs import named_sites

    path = Path(text)
    if text == "coarse" and not path.is_file():
        return text
    if not path.is_file() and (named := named_sites(model.tokenizer, text)) is not None:
        return named
    if not path.is_file():
        raise DataError(
            f"--known {text!r} is no mask; give top, bottom, left, right, coarse, column names, or a .npy or image file"
        )
    size = tuple(getattr(model.tokenizer, "shape", ())[:2])
    if path.suffix.lower() == ".npy":
        try:
            mask = np.asarray(np.load(path, allow_pickle=False)).astype(bool)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"the mask {path} is not a readable .npy file; save it with numpy.save") from error
    else:
        from ancestral.data import Images

        grey = Images.read(path, channels=1).pixels[0, ..., 0]
        mask = grey > (0 if grey.max(initial=0) == 1 else 127)
        if model.tokenizer.modality == "images" and mask.shape != size:
            theirs, ours = (" x ".join(map(str, shape)) for shape in (mask.shape, size))
            raise DataError(
                f"the mask {path} has {theirs} pixels (height x width), and the model's images {ours}; draw it at "
                "their size"
            )
    if mask.size and mask.all():
        raise DataError(f"the mask {path} says that all is known; make black (False) what is to be drawn")
    if mask.shape == size and not mask.any():
        warnings.warn(f"the mask {path} says that nothing is known, so that all is drawn anew", stacklevel=1)
    return mask


def refuse_for_streams(model: Model, **options: Any) -> None:
    """Refuse options that mean nothing to a model of running text, rather than ignore them.

    Raises:
        DataError: one of them is given.
    """
    if model.tokenizer.streaming:
        for name, value in options.items():
            if value:
                raise DataError(
                    f"--{name.replace('_', '-')} is not for models of running text, which have no fixed sites and "
                    "read from front to back; leave it out"
                )


# -- answers


def bytes_of(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size


def ending(history: History) -> str:
    """How training went, in words."""
    why = {"budget": "", "patience": ", stopped early", "interrupted": ", interrupted", "callback": ", stopped"}
    return f"{history.steps} steps in {history.seconds:.0f} s{why.get(history.stopped, '')}"


def human(count: float) -> str:
    """A number of bytes as people write it."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def stdout() -> Console:
    """Where answers go."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def facts(rows: Sequence[tuple[str, Any]]) -> None:
    """Print name and value pairs in two columns."""
    from rich.markup import escape

    console = stdout()
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.print(f"[dim]{escape(name):<{width}}[/dim]  {escape(str(value))}")


def emit(content: Any) -> None:
    """Print JSON for scripts; numbers that JSON lacks become null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        if hasattr(value, "tolist"):
            return plain(value.tolist())
        if isinstance(value, float) and not math.isfinite(value):
            return None
        if value is None or isinstance(value, (str, int, float, bool)):
            return value
        return str(value)

    print(json.dumps(plain(content), indent=2, ensure_ascii=False))


def show(dataset: Dataset) -> None:
    """Print items of text, tables and sequences as they are."""
    if dataset.modality == "table":
        sys.stdout.write(dataset.native().to_csv(index=False))
        return
    if dataset.modality == "sequences":
        for item in dataset.native():
            print(" ".join(map(str, item)))
        return
    payloads = getattr(dataset, "payloads", [])
    for i, payload in enumerate(payloads):
        if len(payloads) > 1:
            print(f"--- {i + 1} of {len(payloads)} ---")
        text = payload.decode("utf-8", errors="replace")
        if sys.stdout.isatty():
            # A model may draw control characters, which must not command the terminal.
            text = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
        print(text)


def write(dataset: Dataset, target: Path) -> str:
    """Write items to ``target`` and say in words what was written; several images on one .png make a sheet."""
    if dataset.modality == "images" and target.suffix.lower() == ".png" and len(dataset) != 1:
        from ancestral.evaluation.pictures import sheet
        from ancestral.files import atomic_path

        if len(dataset) == 0:
            raise DataError(f"{target} cannot show 0 images; draw at least one")
        with atomic_path(target) as path:
            sheet(dataset).save(path, format="PNG", optimize=True)  # type: ignore[arg-type]
        return f"{len(dataset)} images on one sheet, {target} (a folder or .npz keeps each as it is)"
    dataset.save(target, overwrite=True)  # reserve() has asked
    return f"{counted(dataset)} in {target}"


def counted(dataset: Dataset) -> str:
    """How many items of what."""
    noun = {"images": "image", "table": "row", "sequences": "sequence", "audio": "clip"}.get(dataset.modality, "text")
    return f"{len(dataset)} {noun}{'' if len(dataset) == 1 else 's'}"
