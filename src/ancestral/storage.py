"""Models as folders: JSON and safetensors, never pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from ancestral.errors import DataError, UnsupportedError
from ancestral.files import atomic_path
from ancestral.quantisation.weights import follow, plans
from ancestral.version import __version__

if TYPE_CHECKING:
    from torch import Tensor

    from ancestral.model import Model
    from ancestral.recipes.registry import Recipe
    from ancestral.tokenizers import Tokenizer

FORMAT = 1


def save_model(model: Model, path: str | Path, overwrite: bool = False) -> None:
    """Write a folder: ``model.json`` (recipe, configuration, tokenizer) and ``weights.safetensors``.

    A model that is there already is replaced; a folder with other files only if ``overwrite``. A learned tokenizer's
    weights go to ``tokenizer.safetensors``.

    Raises:
        DataError: the place cannot be written, or is a folder of other files.
        UnsupportedError: the model was composed by hand, so that no recipe could rebuild it.
    """
    if model.recipe is None:
        raise UnsupportedError(
            "a model composed by hand cannot be saved, since nothing says how to rebuild it; put its composition "
            "into a function marked @recipe and build it with that"
        )
    content = {
        "format": FORMAT,
        "ancestral": __version__,
        "recipe": model.recipe.id,
        "recipe_file": str(model.recipe.path.resolve()) if model.recipe.modality == "outside" else None,
        "config": model.config,
        "tokenizer": model.tokenizer.state(),
        "space": model.generator.space.to_json(),
        "quantised": plans(model.generator),
    }
    with atomic_path(path, directory=True, overwrite=overwrite, ours="model.json") as folder:
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (folder / "model.json").write_text(text + "\n", encoding="utf-8")
        save_file(_plain(model.generator.state_dict()), folder / "weights.safetensors")
        _save_weights(model.tokenizer, folder)


def save_tokenizer(tokenizer: Tokenizer, path: str | Path, overwrite: bool = False) -> None:
    """Write a folder: ``tokenizer.json``, and ``tokenizer.safetensors`` if the tokenizer has weights.

    A tokenizer that is there already is replaced; a folder with other files only if ``overwrite``.

    Raises:
        DataError: the place cannot be written, or is a folder of other files.
    """
    content = {"format": FORMAT, "ancestral": __version__, "tokenizer": tokenizer.state()}
    with atomic_path(path, directory=True, overwrite=overwrite, ours="tokenizer.json") as folder:
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
        _save_weights(tokenizer, folder)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in the folder of a tokenizer or of a model.

    Raises:
        DataError: no such folder, or damaged.
    """
    from ancestral.tokenizers import Tokenizer

    path = Path(path)
    name = "tokenizer.json" if (path / "tokenizer.json").is_file() else "model.json"
    try:
        content = json.loads((path / name).read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_state(content["tokenizer"])
        _load_weights(tokenizer, path)
    except FileNotFoundError as error:
        raise DataError(f"{path} holds no saved tokenizer: {Path(error.filename or path).name} is missing") from error
    except DataError:
        raise
    except Exception as error:  # unreadable JSON or safetensors raise errors of many kinds
        raise DataError(f"the tokenizer in {path} is damaged and cannot be read: {str(error)[:200]}") from error
    return tokenizer


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().cpu().contiguous() for k, v in tensors.items()}


def _save_weights(tokenizer: Tokenizer, folder: Path) -> None:
    tensors = tokenizer.tensors()
    if tensors:
        save_file(_plain(tensors), folder / "tokenizer.safetensors")


def _load_weights(tokenizer: Tokenizer, folder: Path) -> None:
    if tokenizer.tensors():
        tokenizer.load_tensors(load_file(folder / "tokenizer.safetensors"))


def load_model(path: str | Path, recipe: str | Path | None = None) -> Model:
    """The model that :meth:`save` wrote.

    Args:
        path: the folder.
        recipe: a Python file with the recipe, if it is not one of the package's; by default the file that it was
            in when the model was saved. It is run.

    Raises:
        DataError: not such a folder, damaged, of a newer version, or of a recipe that is not found.
    """
    from ancestral.tokenizers import Tokenizer

    path = Path(path)
    try:
        content = json.loads((path / "model.json").read_text(encoding="utf-8"))
        weights = load_file(path / "weights.safetensors")
    except FileNotFoundError as error:
        raise DataError(f"{path} is not a saved model: {Path(error.filename or path).name} is missing") from error
    except NotADirectoryError as error:
        raise DataError(f"{path} is a file, and a saved model is a folder; give the folder that fit wrote") from error
    except Exception as error:  # unreadable JSON or safetensors raise errors of many kinds
        raise DataError(f"the model in {path} is damaged and cannot be read: {error}") from error
    if content.get("format") != FORMAT:
        raise DataError(
            f"the model in {path} has format {content.get('format')}, this version reads {FORMAT}; "
            f"it was written by ancestral {content.get('ancestral')}"
        )
    try:
        model = _recipe(path, content, recipe)(**_tupled(content["config"]))
        state = content["tokenizer"]
        if state["kind"] == type(model.tokenizer).__name__:
            model.tokenizer.load_state(state)
        else:  # one that fit was given in place of the recipe's
            model.tokenizer = Tokenizer.from_state(state)
        _load_weights(model.tokenizer, path)
        model.build()
        follow(model.generator, content.get("quantised", {}))
        model.generator.load_state_dict(weights)
    except FileNotFoundError as error:
        raise DataError(f"{path} is not a saved model: {Path(error.filename or path).name} is missing") from error
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(
            f"the model in {path} does not fit its recipe {content.get('recipe')!r}: {str(error)[:200]}"
        ) from error
    return model


def _recipe(path: Path, content: dict[str, Any], given: str | Path | None) -> Recipe:
    """The recipe of a saved model.

    Raises:
        DataError: it is not known, or its file has gone.
    """
    from ancestral.recipes.registry import find

    name, file = content["recipe"], content.get("recipe_file")
    if given is not None:
        return find(given, name if str(given).endswith(".py") else "")
    if file is not None or name.endswith(".py"):
        # Whoever made the folder wrote this path: nothing in the folder itself may run, nor anything near by chance.
        place = Path(file or name)
        if not place.is_absolute() or not place.is_file() or place.resolve().is_relative_to(path.resolve()):
            raise DataError(
                f"the model in {path} was made by the recipe {name!r} of {place}, which is not there; give the file "
                "that has it, with recipe= in Python or --recipe on the command line"
            )
        return find(place, name)
    return find(name)


def _tupled(content: Any) -> Any:
    """JSON lists back to the tuples that recipes take."""
    if isinstance(content, dict):
        return {k: _tupled(v) for k, v in content.items()}
    return tuple(_tupled(v) for v in content) if isinstance(content, list) else content
