"""Prompts with parts that have no order: the output does not depend on the sequence they are given in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ancestral.decoding.decoders import Ancestral, Request
from ancestral.decoding.speculative import prepare
from ancestral.decoding.walk import Draw, draw_categories
from ancestral.errors import DataError, UnsupportedError, check_range
from ancestral.heads.base import Finite
from ancestral.networks.transformer import CausalTransformer, KeyValues
from ancestral.noise import Noise

if TYPE_CHECKING:
    from ancestral.generator import Generator
    from ancestral.model import Model
    from ancestral.tokenizers import SequenceTokenizer


class SetPrompt:
    """A prompt of a beginning, parallel parts and an end (McIlroy-Young et al. 2024, arXiv:2406.06581).

    The parts all start at the position behind the beginning and do not see each other; the end sees everything and
    starts behind the longest part. Nothing then depends on the order of the parts; they are sorted besides, so that
    not even the rounding does.

    Args:
        generator: a causal transformer over one stream of symbols.
        before: int64 ``[T]``, may be empty.
        parts: int64 ``[T_i]`` each, not empty.
        after: int64 ``[T]``, not empty.
        ordered: do not sort the parts (to see the mechanism alone).

    Raises:
        UnsupportedError: another kind of network.
        DataError: an empty part or end, or more than the window holds.
    """

    def __init__(
        self, generator: Generator, before: Tensor, parts: Sequence[Tensor], after: Tensor, ordered: bool = False
    ):
        network = generator.network
        words = "prompts of sets need a causal transformer over symbols, without learned targets"
        if not isinstance(network, CausalTransformer) or not network.site_per_place:
            raise UnsupportedError(words)
        if network.source is not None or network.space.event:
            raise UnsupportedError(words)
        if not len(after) or not parts or not all(len(p) for p in parts):
            raise DataError("a prompt of sets needs parts and an end with at least one symbol each")
        if not ordered:
            parts = sorted(parts, key=lambda p: p.tolist())
        self.generator, self.network = generator, network
        # Place 0 holds the vector that begins a text; the input of every other place is a symbol of the prompt.
        begin, longest = 1 + len(before), max(len(p) for p in parts)
        self.symbols = torch.cat([before, *parts, after])
        spans = [torch.arange(begin), *(begin + torch.arange(len(p)) for p in parts)]
        self.positions = torch.cat([*spans, begin + longest + torch.arange(len(after))])
        self.end = begin + longest + len(after)
        if max(self.end, len(self.positions)) > network.space.n:
            raise DataError(f"the prompt takes {len(self.positions)} places, the window has {network.space.n}")
        group = torch.cat([torch.full((begin,), -1), *(torch.full((len(p),), i) for i, p in enumerate(parts))])
        group = torch.cat([group, torch.full((len(after),), -2)])
        place = torch.arange(len(group))
        seen = (group[None] == group[:, None]) | (group[None] == -1) | (group[:, None] == -2)
        self.mask = seen & (place[None] <= place[:, None])

    @torch.no_grad()
    def read(self) -> tuple[Tensor, list[KeyValues]]:
        """Log-probabilities of the symbol behind the prompt ``[K]``, and all places' keys and values."""
        network = self.network
        embedded = network.embed(self.symbols[None], torch.arange(len(self.symbols)).clamp(max=network.space.n - 1))
        x = torch.cat([network.first.expand(1, 1, network.width), embedded], 1)
        x = self._placed(x, self.positions)
        rotation = None if network.rotation is None else network.rotation(self.positions)
        state = []
        for block in network.blocks:
            q, k, v = block.project(x, rotation)
            state.append(KeyValues(k, network.space.n))
            k, v = state[-1].append(k, v)
            x = block.finish(x, block.attend(q, k, v, self.mask))
        return self._log_probs(network.norm(x[:, -1:]), self.end - 1), state

    @torch.no_grad()
    def draw(self, length: int, noise: Noise, **options: Any) -> Tensor:
        """``length`` symbols that follow the prompt, int64 ``[length]``.

        Args:
            length: symbols to draw.
            noise: one stream.
            options: temperature, top_k, top_p, min_p.
        """
        network = self.network
        places = len(self.positions)
        if max(self.end, places) + length - 1 > network.space.n:
            raise DataError(f"the prompt and {length} symbols do not fit into the window of {network.space.n}")
        draw = Draw(noise, **options)
        log_probs, state = self.read()
        out: list[Tensor] = []
        for step in range(length):
            out.append(draw_categories(draw.adjust(log_probs[None, None]), noise)[0])
            if step + 1 < length:
                position = torch.tensor([self.end + step])
                x = self._placed(network.embed(out[-1][None], position), position)
                order = self.generator.order.scoring()
                features, state = network.mix(x, (places + step, places + step + 1), position, order, state)
                log_probs = self._log_probs(features, self.end + step)
        return torch.cat(out) if out else torch.zeros(0, dtype=torch.int64)

    def _placed(self, x: Tensor, positions: Tensor) -> Tensor:
        network = self.network
        x = x if network.target is None else x + network.target(positions)
        return x + network.told(None, positions, 1)

    def _log_probs(self, features: Tensor, position: int) -> Tensor:
        found = self.generator.head(features, torch.tensor([position]))
        assert isinstance(found, Finite)
        return F.log_softmax(found.logits[0, 0], -1)


@dataclass(frozen=True)
class Marked:
    """Takes what stands between marks in a known beginning as parts without an order (:class:`SetPrompt`).

    Args:
        tokenizer: spells the marks.
        marks: before the first part, between two, and behind the last; each one symbol. Without them everything is
            drawn as always.
    """

    tokenizer: SequenceTokenizer
    marks: tuple[Any, Any, Any]

    def __call__(self, generator: Generator, request: Request) -> Tensor:
        values, order, known = prepare(generator, request)
        marks = [self._spelled(mark) for mark in self.marks]
        every = torch.tensor([i for mark in marks for i in mark], dtype=torch.int64)
        if not order.is_raster or not bool(torch.isin(values[:, :known], every).any()):
            return Ancestral()(generator, request)
        if not all(len(mark) == 1 for mark in marks):
            raise DataError(f"the marks {self.marks!r} are not one symbol each; choose others with marks=")
        if request.condition.label is not None:
            raise UnsupportedError("prompts of sets take no label")
        length = generator.space.n - known if request.sets is None else min(request.sets, generator.space.n - known)
        seeds, stop = request.noise.bits(1)[:, 0], generator.space.stop
        for i, row in enumerate(values):
            before, parts, after = _parts(row[:known], *(mark[0] for mark in marks))
            drawn = SetPrompt(generator, before, parts, after).draw(length, Noise(seeds[i : i + 1]), **request.options)
            row[known : known + length] = drawn
            ends = [] if stop is None else torch.nonzero(drawn == stop)[:, 0].tolist()
            if ends:
                row[known + ends[0] :] = stop
        return values

    def _spelled(self, mark: Any) -> tuple[int, ...]:
        try:
            return self.tokenizer.symbols(mark)
        except DataError:  # no symbol of this vocabulary, so that no prompt can hold it
            return ()


def _parts(prompt: Tensor, begin: int, between: int, end: int) -> tuple[Tensor, list[Tensor], Tensor]:
    """What stands before, between and behind the marks.

    Raises:
        DataError: marks that do not go together, or nothing behind them.
    """
    where = [(i, int(prompt[i])) for i in torch.nonzero(torch.isin(prompt, torch.tensor([begin, between, end])))[:, 0]]
    kinds = [kind for _, kind in where]
    if kinds[:1] != [begin] or kinds[-1:] != [end] or any(kind != between for kind in kinds[1:-1]) or len(kinds) < 2:
        raise DataError("the marks of a set of parts are one that begins it, those between parts, and one that ends it")
    places = [i for i, _ in where]
    parts = [prompt[a + 1 : b] for a, b in pairwise(places)]
    return prompt[: places[0]], parts, prompt[places[-1] + 1 :]


def complete_set(
    model: Model, before: str, parts: Sequence[str], after: str, *, length: int, seed: int = 0, **options: Any
) -> str:
    """What the model writes after a prompt whose ``parts`` have no order; the same for every order of them.

    Args:
        model: a model of streams of text with a causal transformer.
        before, parts, after: the prompt.
        length: symbols to add, fewer if the text ends.
        seed: of the draw.
        options: temperature, top_k, top_p, min_p.
    """
    from ancestral.inputs import check_drawing

    check_drawing(options, seed=seed, length=length)
    check_range("a prompt of sets", "length", length, 1)
    if isinstance(parts, str):
        raise DataError(f"parts={parts!r} must be a list of texts")
    tokenizer = model.tokenizer
    if not tokenizer.streaming or tokenizer.modality != "text":
        raise UnsupportedError("prompts of sets are for models of streams of text")
    pieces = [tokenizer.streams(model.read([t]))[0] if t else torch.zeros(0).long() for t in (before, *parts, after)]
    prompt = SetPrompt(model.generator, pieces[0], pieces[1:-1], pieces[-1])
    drawn = prompt.draw(length, Noise.of(seed, 1), **options)
    ends = torch.nonzero(torch.isin(drawn, torch.tensor(tokenizer.ends, dtype=torch.int64)))
    drawn = drawn[: int(ends[0])] if len(ends) else drawn
    return str(tokenizer.from_streams([drawn]).native()[0])
