"""Tokenizers of images by name, where no object can be handed over: on the command line, in a script's options."""

from __future__ import annotations

import difflib
import inspect
import json
import re
from typing import Any

from ancestral.errors import DataError
from ancestral.tokenizers.base import Tokenizer


def kinds() -> dict[str, Any]:
    """Name -> class of what a name can stand for: fixed tokenizers of images, quantisers, and networks of 1-D tokens.

    A name is that of the class, in small letters with hyphens. Quantisers that are made of others have none.
    """
    from ancestral.tokenizers import learned, pixels, transforms, wavelets
    from ancestral.tokenizers.learned import Pyramid, Quantiser, Query

    found = {}
    for module in (pixels, transforms, wavelets, learned):
        for kind in vars(module).values():
            if not inspect.isclass(kind) or inspect.isabstract(kind) or kind in (Quantiser, Pyramid):
                continue
            fixed = issubclass(kind, Tokenizer) and not kind.learned and kind.__module__ == module.__name__
            if (fixed or issubclass(kind, Quantiser | Query)) and all(
                p.default is not p.empty for p in inspect.signature(kind).parameters.values()
            ):
                found[re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", kind.__name__).lower()] = kind
    return found


def named(text: str) -> Tokenizer | None:
    """The unfitted tokenizer that ``text`` names; None if it names none.

    Args:
        text: a name of :func:`kinds`, such as ``dct`` or ``vq``; arguments follow a colon, separated by commas, with
            lists in brackets (``multi-scale-vq:codes=64,scales=[1,2,4]``). Quantisers are put into an
            :class:`Autoencoder` with its default network, and networks around its default quantiser. Quantisers
            joined by ``+`` are the branches of a :class:`Product` (``vq:codes=64+vq:codes=64``).

    Raises:
        DataError: an argument that this tokenizer does not have, or a value that it does not take; or ``+`` between
            others than quantisers.
    """
    from ancestral.tokenizers.learned import Autoencoder, Product, Quantiser

    known, parts = kinds(), text.split("+")
    if any(part.partition(":")[0] not in known for part in parts):
        return None
    try:
        made = [_made(part, known) for part in parts]
        if len(made) > 1:
            if not all(isinstance(one, Quantiser) for one in made):
                raise DataError(f"the tokenizer {text} joins others than quantisers; + is for these, as in vq+vq")
            made = [Product(made)]
    except (TypeError, ValueError) as error:
        raise DataError(f"the tokenizer {text} cannot be made: {str(error).splitlines()[0]}") from error
    if isinstance(made[0], Tokenizer):
        return made[0]
    return Autoencoder(made[0]) if isinstance(made[0], Quantiser) else Autoencoder(backbone=made[0])


def _made(text: str, known: dict[str, Any]) -> Any:
    name, _, rest = text.partition(":")
    defaults = {n: p.default for n, p in inspect.signature(known[name]).parameters.items()}
    arguments: dict[str, Any] = {}
    for part in re.split(r",(?![^\[]*\])", rest) if rest else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key not in defaults:
            raise DataError(f"the tokenizer {name} has no argument {part!r}; it takes {', '.join(defaults) or 'none'}")
        try:
            arguments[key] = json.loads(value)
        except ValueError:
            arguments[key] = value
        if isinstance(arguments[key], list):
            arguments[key] = tuple(arguments[key])
        for wanted, what in (((int, float), "number"), (tuple, "list in brackets")):
            if isinstance(defaults[key], wanted) and not isinstance(arguments[key], wanted):
                raise DataError(f"{key}={value} of the tokenizer {name} is no {what}; its default is {defaults[key]}")
    return known[name](**arguments)


def unknown(text: str) -> str:
    """What to say of a text that is neither a saved tokenizer nor a name."""
    names = sorted(kinds())
    close = difflib.get_close_matches(text.partition(":")[0], names, 1, 0.6)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"there is no saved tokenizer {text}, and none of that name{hint}; names are {', '.join(names)}"
