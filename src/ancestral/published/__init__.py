"""Authors' checkpoints: their parameter names and settings, mapped onto the modules here."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ancestral.errors import AncestralError, DataError
from ancestral.published.weights import Settings, Weights, read_weights

if TYPE_CHECKING:
    from ancestral.model import Model
    from ancestral.tokenizers import Tokenizer

_HELPERS = ("weights", "autoencoders")


def systems() -> tuple[str, ...]:
    """Names that :func:`load_published` knows: one module of this package each."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _HELPERS))


def evidence(system: str) -> tuple[str, str, str]:
    """What a published system is, what its mapping was compared with, and which outputs were compared."""
    module = importlib.import_module(f"{__name__}.{system}")
    return (module.__doc__ or "").split("\n")[0].rstrip("."), module.AGAINST, module.CHECKED


def load_published(
    system: str,
    source: str | Path | Mapping[str, Tensor],
    config: Mapping[str, Any],
    tokenizer: Tokenizer | None = None,
) -> Model | Tokenizer:
    """A published model with the weights that its authors released.

    Args:
        system: one of :func:`systems`: a prior such as "var" and "rar", or a tokenizer such as "var_vqvae" and
            "maskgit_vq".
        source: a ``.safetensors`` file, a ``.pth`` or ``.pt`` file (read with ``weights_only``, so that it cannot
            run code), or the state dict itself, under the authors' names.
        config: the arguments of the authors' class, under their names; each system's module says which are read.
        tokenizer: for a prior, the tokenizer that its codes or latents are of. Without one the model's ``generator``
            works, and verbs that need images are refused; ``var`` cannot do without.

    Returns:
        A tokenizer, or a model; both in evaluation mode, in float32.

    Raises:
        DataError: no such system, a file that cannot be read, or weights that do not fit the configuration.
    """
    if system not in systems():
        raise DataError(f"there is no mapping for {system!r}; the published systems are {', '.join(systems())}")
    module = importlib.import_module(f"{__name__}.{system}")
    if not isinstance(config, Mapping):
        raise DataError(f"config= is a {type(config).__name__}; give the arguments of the authors' class as a dict")
    weights, settings = Weights(read_weights(source)), Settings(config)
    try:
        return module.load(weights, settings, tokenizer)
    except AncestralError:
        raise
    except Exception as error:  # a mapping is arithmetic on what it is given, which may be anything
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"the weights and the configuration do not make a {system}: {what}; give the file and the arguments of "
            f"the authors' class, with numbers as numbers"
        ) from error


__all__ = ["evidence", "load_published", "systems"]
