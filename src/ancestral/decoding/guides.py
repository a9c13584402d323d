"""Guides: what has a say in every draw of a sequence besides the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ancestral.decoding.decoders import Request
from ancestral.decoding.speculative import prepare
from ancestral.decoding.walk import Draw, draw_categories, walk
from ancestral.errors import DataError, UnsupportedError
from ancestral.heads.base import Finite, Leaf

if TYPE_CHECKING:
    from ancestral.generator import Generator
    from ancestral.model import Model


class Guiding(Protocol):
    """A guide on its way through one item."""

    def adjust(self, log_probs: Tensor) -> Tensor:
        """Log-probabilities ``[K]`` of the next symbol, normalised or not, in place of the model's."""
        ...

    def advance(self, value: int) -> None:
        """The next symbol is ``value``."""
        ...


class Guide(Protocol):
    """Starts a :class:`Guiding` for every item."""

    def start(self, generator: Generator, prefix: Tensor, length: int) -> Guiding:
        """For an item whose first symbols are ``prefix`` ``[T]``, and at most ``length`` more."""
        ...


@dataclass(frozen=True)
class Guided:
    """Draws symbol by symbol from the model's distribution as its guide has changed it.

    Args:
        guide: a :class:`Grammar`, :class:`ancestral.decoding.lexical.Keywords` or another.
    """

    guide: Guide

    def __call__(self, generator: Generator, request: Request) -> Tensor:
        values, order, known = prepare(generator, request)
        if not order.is_raster:
            raise UnsupportedError("a guide needs symbols that are drawn one after the other, the first one first")
        length = generator.space.n - known if request.sets is None else min(request.sets, generator.space.n - known)
        ends = set() if request.ends is None else set(request.ends.tolist())
        guidings = [self.guide.start(generator, row[:known], length) for row in values]
        return walk(
            generator,
            _Chooser(guidings, Draw(request.noise, **request.options), ends),
            request.noise.batch,
            order,
            request.condition,
            given=values if known else None,
            known_sets=known,
            sets=request.sets,
            ends=request.ends,
        ).values


class _Chooser:
    def __init__(self, guidings: list[Guiding], draw: Draw, ends: set[int]):
        self.guidings, self.draw, self.ends = guidings, draw, ends
        self.over = [False] * len(guidings)

    def __call__(self, leaf: Leaf, given: Tensor | None, alive: Tensor | None) -> Tensor:
        if not isinstance(leaf, Finite):
            raise UnsupportedError("a guide needs a head with one finite value per site")
        log_probs = leaf.log_probs()
        for i, guiding in enumerate(self.guidings):
            if not self.over[i] and (alive is None or bool(alive[i, 0])):
                changed = guiding.adjust(log_probs[i, 0])
                if bool(changed.isneginf().all()):
                    raise DataError(
                        "no symbol can follow: the guide and the model leave nothing; loosen the constraint"
                    )
                log_probs[i, 0] = changed
        drawn = draw_categories(self.draw.adjust(torch.log_softmax(log_probs, -1)), self.draw.noise)
        for i, guiding in enumerate(self.guidings):
            value = int(drawn[i, 0])
            if not self.over[i] and (alive is None or bool(alive[i, 0])):
                self.over[i] = value in self.ends
                if not self.over[i]:
                    guiding.advance(value)
        return drawn


class Grammar:
    """Keeps a text within a regular expression, a context-free grammar or a JSON schema (needs ``[grammar]``).

    The symbols that cannot go on are ruled out at every place and the others' probabilities normalised, so that what
    is drawn fits, but more easily runs into corners that the model finds improbable than a draw that was conditioned
    on fitting would. A text that reaches its length before the expression is complete stays incomplete.

    Args:
        model: a model of text whose symbols include an end.
        regex: for the Rust ``regex`` crate, over the whole continuation.
        lark: grammar in llguidance's Lark dialect.
        json: JSON schema.

    Raises:
        UnsupportedError: the package ``llguidance`` is missing, or the texts have no end.
        DataError: not exactly one of the three, or one that cannot be read.
    """

    def __init__(self, model: Model, *, regex: str | None = None, lark: str | None = None, json: Any = None):
        try:
            from llguidance import LLMatcher
        except ImportError as error:
            raise UnsupportedError(
                'grammars need the package llguidance; install it with pip install "ancestral[grammar]"'
            ) from error
        if sum(x is not None for x in (regex, lark, json)) != 1:
            raise DataError("give exactly one of regex=, lark= and json=")
        self._matcher = LLMatcher
        if regex is not None:
            self._grammar = LLMatcher.grammar_from_regex(regex)
        elif lark is not None:
            self._grammar = LLMatcher.grammar_from_lark(lark)
        else:
            self._grammar = LLMatcher.grammar_from_json_schema(json)
        self._tokenizer, self._ends = _symbols(model)
        problem = LLMatcher.validate_grammar(self._grammar, self._tokenizer)
        if problem:
            raise DataError(f"the grammar cannot be read: {' '.join(problem.split())[:300]}")

    def start(self, generator: Generator, prefix: Tensor, length: int) -> Guiding:
        return _Matching(self._matcher(self._tokenizer, self._grammar), self._ends)


class _Matching:
    def __init__(self, matcher: Any, ends: list[int]):
        self.matcher, self.ends = matcher, ends

    def adjust(self, log_probs: Tensor) -> Tensor:
        bits = torch.frombuffer(bytearray(self.matcher.compute_bitmask()), dtype=torch.uint8)
        allowed = (bits[:, None] >> torch.arange(8, dtype=torch.uint8) & 1).flatten()[: len(log_probs)].bool()
        # The library knows one end; the model may have several.
        allowed[self.ends] = bool(allowed[self.ends[0]])
        return log_probs.masked_fill(~allowed.to(log_probs.device), -torch.inf)

    def advance(self, value: int) -> None:
        if value not in self.ends and not self.matcher.consume_token(value):
            raise DataError(f"the grammar refused a symbol that it had allowed: {self.matcher.get_error()}")


def _symbols(model: Model) -> tuple[Any, list[int]]:
    """The model's symbols as llguidance takes them, and those that end a text."""
    from llguidance import LLTokenizer, TokenizerWrapper

    tokenizer, space = model.tokenizer, model.space
    ends = list(tokenizer.ends) or ([] if space.stop is None else [space.stop])
    if not ends:
        raise UnsupportedError(
            "a grammar needs a model whose texts have an end: fit with streaming=False, or load a language model"
        )
    one = getattr(tokenizer, "spelling", None)
    if one is None:
        raise UnsupportedError(f"{type(tokenizer).__name__} does not spell its symbols; a grammar needs text")
    spelled = one()
    spelled += [b""] * (space.largest - len(spelled))

    table = {word: i for i, word in reversed(list(enumerate(spelled))) if word and i not in ends}
    widest = max(map(len, table))

    class _Source:
        eos_token_id = ends[0]
        bos_token_id = None
        tokens = [b"<end>" if i in ends else word for i, word in enumerate(spelled)]
        special_token_ids = [i for i, word in enumerate(spelled) if i in ends or not word]

        def __call__(self, text: str | bytes) -> list[int]:
            return _longest(text.encode() if isinstance(text, str) else bytes(text), table, widest)

    return LLTokenizer(TokenizerWrapper(_Source()), n_vocab=space.largest, slices=[]), ends


def _longest(text: bytes, table: dict[bytes, int], widest: int) -> list[int]:
    """Symbols that spell ``text``, the longest first; any spelling would do where a grammar forces what follows."""
    out, start = [], 0
    while start < len(text):
        for end in range(min(len(text), start + widest), start, -1):
            if text[start:end] in table:
                out.append(table[text[start:end]])
                break
        else:
            break  # not all bytes have symbols; what is missing is forced later, symbol by symbol
        start = end
    return out
