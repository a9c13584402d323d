"""From files to a model that answers the verbs."""

from __future__ import annotations

from pathlib import Path

from ancestral.errors import DataError
from ancestral.model import Model
from ancestral.pretrained.parts import Parts, state_dict

_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_WINDOW = 1024


def is_language_model(path: str | Path) -> bool:
    """Whether ``path`` looks like a language model's files rather than like a folder that ancestral saved."""
    path = Path(path)
    if path.suffix.lower() in {".gguf", ".safetensors"} | _PICKLES and not path.is_dir():
        return True
    return (path / "config.json").exists() and not (path / "model.json").exists()


def load_language_model(
    path: str | Path, length: int | None = None, begin: str | None = None, specials: bool = False
) -> Model:
    """A published language model.

    It scores texts given the symbol that begins one, in windows of ``length`` symbols; its weights are float32.

    Args:
        path: a GGUF file, or a folder with ``config.json``, ``*.safetensors`` and ``tokenizer.json``.
        length: symbols of a window; by default 1,024, or what the network was trained for if that is less.
        begin: symbol that begins a text; by default the one that the files name or, where a text is not meant to
            begin with it, ``<|endoftext|>``.
        specials: read control symbols (``<|im_start|>``) in texts as such; by default they are plain text.

    Raises:
        DataError: missing, damaged or contradictory files, pickles, a window longer than the network knows.
        UnsupportedError: another network or tokenizer, or the package ``gguf`` is missing.
    """
    parts = _read(Path(path))
    if length is None:
        length = min(_WINDOW, parts.context)
    if not 1 <= length <= parts.context:
        raise DataError(f"length={length}: this network was trained for windows of 1 to {parts.context} symbols")
    if begin is not None:
        parts.begin = _symbol(parts, begin)
    return _build(parts, length, specials)


def _read(path: Path) -> Parts:
    if path.suffix.lower() in _PICKLES and not path.is_dir():
        raise DataError(
            f"{path} is a pickle, which can run any code when it is read, and is refused; convert it to safetensors"
        )
    if not path.exists():
        raise DataError(f"there is no file {path}; check the path")
    if path.suffix.lower() == ".gguf":
        from ancestral.pretrained.gguf import read_gguf

        return read_gguf(path)
    from ancestral.pretrained.huggingface import read_folder

    if path.suffix.lower() == ".safetensors":
        raise DataError(f"{path} holds weights only; give its folder, with config.json and tokenizer.json")
    return read_folder(path)


def _build(parts: Parts, length: int, specials: bool) -> Model:
    from accelerate import init_empty_weights

    from ancestral.recipes.registry import find
    from ancestral.tokenizers import Vocabulary

    model = find(parts.recipe)(**parts.config, tokens="vocabulary", length=length)
    tokenizer = model.tokenizer
    assert isinstance(tokenizer, Vocabulary)
    tokenizer.adopt(parts.codec, parts.symbols, parts.begin, parts.ends)
    tokenizer.specials = specials
    with init_empty_weights(include_buffers=False):  # no time is spent on weights that are replaced at once
        model.build()
    weights = state_dict(parts, length)
    try:
        model.generator.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise DataError(f"the weights do not fit the network that the files describe: {detail}") from error
    model.generator.eval()
    return model


def _symbol(parts: Parts, name: str) -> int:
    from tokenizers import Tokenizer as Codec

    found = Codec.from_str(parts.codec).token_to_id(name)
    if found is None:
        raise DataError(f"begin={name!r} is no symbol of this model's vocabulary")
    return found
