"""Reading authors' weights, renaming them, and filling modules with them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ancestral.data import Dataset
from ancestral.errors import DataError, UnsupportedError
from ancestral.space import Space
from ancestral.tokenizers.base import Tokenizer

if TYPE_CHECKING:
    from ancestral.model import Model


class Settings(dict[str, Any]):
    """A configuration that names what it lacks."""

    def __missing__(self, name: str) -> Any:
        known = ", ".join(map(str, self)) or "nothing"
        raise DataError(f"the configuration lacks {name}, an argument of the authors' class; it has {known}")


class Weights(dict[str, Tensor]):
    """Weights that say which of them is missing."""

    def __missing__(self, name: str) -> Tensor:
        raise DataError(f"the weights do not fit the configuration: there is no {name} among them")


def read_weights(source: str | Path | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a file, or the one given; floating-point tensors as float32.

    Authors publish ``.safetensors``, or PyTorch's ``.pt`` and ``.pth``, which are pickles: see :func:`read_pickled`.

    Raises:
        DataError: no file, or one that cannot be read or holds anything but tensors and plain values.
    """
    found: Any = source
    if not isinstance(source, Mapping):
        path = Path(source)
        try:
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                found = load_file(path)
            else:
                found = read_pickled(path)
        except FileNotFoundError as error:
            raise DataError(f"there is no file {path}; check the path") from error
        except DataError:
            raise
        except Exception as error:  # damaged files raise errors of many kinds
            raise DataError(f"{path} cannot be read as weights: {str(error)[:200]}") from error
        if not isinstance(found, Mapping):
            raise DataError(f"{path} holds a {type(found).__name__} where weights by name are expected")
    for wrapper in (
        "state_dict",
        "model",
        "model_ema",
        "module",
        "sd",
    ):  # checkpoints of training hold more than the weights
        if isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    return {k: v.float() if v.is_floating_point() else v for k, v in found.items() if isinstance(v, Tensor)}


PLAIN = (Tensor, str, bytes, int, float, complex, type(None), torch.dtype, torch.device)
CONTAINERS = (list, tuple, set, frozenset)
"""What a file of weights may hold, in dicts and in these."""


def read_pickled(path: Path) -> Any:
    """What a ``.pt`` file holds, without running anything that it asks for.

    Pickles name functions that are called while they are read, so that loading one runs its author's code. Nothing here
    ever does that: PyTorch's restricted reader (``weights_only=True``, said here so that no environment variable undoes
    it) has an interpreter of its own that rebuilds tensors and plain containers, and stops before any other name is
    even imported. What it read is then looked through, because other libraries of the same process may have told it to
    accept classes of theirs.

    Raises:
        DataError: anything but tensors, plain values and containers.
        FileNotFoundError: no such file.
    """
    advice = "nothing of the file was run; ask its authors for .safetensors, or save the state_dict() alone"
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"asks for {named[1]}" if named else "holds more than tensors, or is damaged"
        raise DataError(f"{path} {what} where only tensors and plain containers are read; {advice}") from error
    odd = _odd(found)
    if odd is not None:
        raise DataError(f"{path} holds a {odd} where only tensors and plain containers are read; {advice}")
    return found


def _odd(found: Any) -> str | None:
    """The name of the first class in it that is neither plain nor a container; None if there is none."""
    if isinstance(found, dict):
        parts: Iterable[Any] = (*found.keys(), *found.values())
    elif isinstance(found, CONTAINERS):
        parts = found
    else:
        return None if isinstance(found, PLAIN) else type(found).__name__
    return next((name for part in parts if (name := _odd(part)) is not None), None)


def renamed(state: Mapping[str, Tensor], rules: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """The weights under other names.

    Args:
        state: under the authors' names.
        rules: pairs of a regular expression and its replacement, all applied in turn; an empty result drops the
            weight.
    """
    out = Weights()
    for name, tensor in state.items():
        for pattern, to in rules:
            name = re.sub(pattern, to, name)
        if name:
            out[name] = tensor
    return out


def fill(module: nn.Module, tensors: Mapping[str, Tensor], keep: Iterable[str] = ()) -> None:
    """Load ``tensors`` into a module, every one of them and every one of it.

    Args:
        module: built.
        tensors: under the module's names.
        keep: prefixes of what the module already has and the tensors lack.

    Raises:
        DataError: a weight too few, too many, or of another shape.
    """
    own = module.state_dict()
    missing = [k for k in own if k not in tensors and not any(k.startswith(p) for p in keep)]
    unknown = [k for k in tensors if k not in own]
    shapes = [k for k in tensors if k in own and tensors[k].shape != own[k].shape]
    if missing or unknown:
        parts = (("missing", missing), ("without a place", unknown))
        told = [f"{len(names)} {what} ({', '.join(names[:3])})" for what, names in parts if names]
        raise DataError(f"the weights do not fit the configuration: {' and '.join(told)}")
    if shapes:
        name = shapes[0]
        raise DataError(
            f"the weights do not fit the configuration: {name} has the shape {tuple(tensors[name].shape)} and the "
            f"configuration asks for {tuple(own[name].shape)}"
        )
    module.load_state_dict(dict(tensors), strict=False)
    module.eval()


class NoTokenizer(Tokenizer):
    """Stands for the tokenizer of a model that was loaded without one: it knows the space and nothing else."""

    modality = "images"
    lossless = False

    def __init__(self, space: Space):
        self._space = space

    def _refuse(self) -> UnsupportedError:
        return UnsupportedError("this model was loaded without its tokenizer; give load_published(..., tokenizer=)")

    def fit(self, dataset: Dataset) -> NoTokenizer:
        raise self._refuse()

    def encode(self, dataset: Dataset) -> Tensor:
        raise self._refuse()

    def decode(self, values: Tensor) -> Dataset:
        raise self._refuse()

    def state(self) -> dict[str, Any]:
        return self._base_state()

    def load_state(self, state: dict[str, Any]) -> None:
        self._load_base(state)


def fitting_tokenizer(tokenizer: Tokenizer | None, space: Space) -> Tokenizer:
    """The tokenizer given, told the classes of ``space``, or one that only knows the space.

    Raises:
        DataError: a tokenizer of another space.
    """
    if tokenizer is None:
        return NoTokenizer(space)
    theirs = tokenizer.space
    if (theirs.shape, theirs.sizes, theirs.event) != (space.shape, space.sizes, space.event):
        raise DataError(
            f"the tokenizer has sites {theirs.shape} of {theirs.sizes} categories and event {theirs.event}, the model "
            f"{space.shape}, {space.sizes} and {space.event}; load the tokenizer that the model was trained on"
        )
    tokenizer.classes = tuple(str(k) for k in range(space.classes))
    tokenizer._space = theirs.replace(classes=space.classes)
    return tokenizer


def filled(model: Model, tensors: Mapping[str, Tensor], keep: Iterable[str] = ()) -> Model:
    """A model whose generator has been built and filled."""
    model.build()
    fill(model.generator, tensors, keep)
    return model


def llama_hidden(config: Mapping[str, Any]) -> int:
    """Hidden features of a Llama's feed-forward layer: two thirds of four times the width, rounded up."""
    hidden = int(2 * 4 * config["dim"] / 3)
    if config.get("ffn_dim_multiplier") is not None:
        hidden = int(config["ffn_dim_multiplier"] * hidden)
    multiple = config.get("multiple_of", 256)
    return -(-hidden // multiple) * multiple


def llama_layers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A Llama's layers under the names of :class:`ancestral.networks.transformer.Block`, all else as it was.

    Queries and keys stay as they are: theirs too turn neighbouring features as pairs.

    Args:
        state: with ``layers.0.attention.wqkv.weight`` and so on.
    """
    out = Weights()
    for name, tensor in state.items():
        found = re.fullmatch(r"layers\.(\d+)\.(.+)\.weight", name)
        if not found:
            out[name] = tensor
            continue
        layer, part = f"network.blocks.{found[1]}.", found[2]
        if part in ("feed_forward.w1", "feed_forward.w3"):  # the gate, and what it lets through
            if part.endswith("w1"):
                through = state[name.replace("w1", "w3")]
                out[layer + "mlp.inner.weight"] = torch.cat([tensor, through])
        else:
            names = {
                "attention.wqkv": "qkv",
                "attention.wo": "out",
                "attention_norm": "norm",
                "feed_forward.w2": "mlp.outer",
                "ffn_norm": "norm2",
            }
            out[f"{layer}{names.get(part, part)}.weight"] = tensor
    return out


def section(config: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """The settings under ``path`` of a nested configuration, or all of them if it is flat."""
    found: Any = config
    for part in path:
        if part not in found:
            return Settings(config if found is config else {})
        found = found[part]
    return Settings(found)


def pick(state: dict[str, Tensor], name: str) -> Tensor:
    """Take a weight out of the authors' state.

    Raises:
        DataError: it is not there.
    """
    if name not in state:
        raise DataError(f"the weights do not fit the configuration: there is no {name} among them")
    return state.pop(name)


def joined(state: dict[str, Tensor], to: str, *names: str) -> None:
    """Put weights below each other under one name, in place.

    Raises:
        DataError: one of them is not there.
    """
    state[to] = torch.cat([pick(state, name) for name in names])
