"""Texts that contain given words: a hidden Markov model, distilled from the model, looks ahead.

GeLaTo (Zhang et al. 2023, arXiv:2304.07438): the next symbol is drawn from ``p(x | prefix)`` times the hidden Markov
model's probability that the words will all occur, which is computed exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ancestral.decoding.decoders import Ancestral, Request
from ancestral.decoding.guides import Guided, Guiding
from ancestral.errors import DataError, check_range
from ancestral.noise import Noise

if TYPE_CHECKING:
    from ancestral.generator import Generator
    from ancestral.tokenizers import SequenceTokenizer


@dataclass
class HiddenMarkov:
    """A hidden Markov model of symbols.

    Attributes:
        initial: float64 ``[H]``.
        transition: float64 ``[H, H]``, rows sum to 1.
        emission: float64 ``[H, K]``, rows sum to 1.
    """

    initial: Tensor
    transition: Tensor
    emission: Tensor

    @classmethod
    def fit(
        cls, sequences: Tensor, symbols: int, states: int = 32, rounds: int = 30, seed: int = 0, smooth: float = 1e-3
    ) -> HiddenMarkov:
        """Expectation maximisation (Baum et al. 1970) on samples of the model that is distilled.

        Args:
            sequences: int64 ``[n, T]``.
            symbols: K.
            states: H.
            rounds: of the algorithm.
            seed: of the start.
            smooth: added to all counts, so that nothing becomes impossible.
        """
        random = torch.Generator().manual_seed(seed)

        def rows(*shape: int) -> Tensor:
            found = torch.rand(*shape, generator=random, dtype=torch.float64) + 0.5
            return found / found.sum(-1, keepdim=True)

        frequency = torch.bincount(sequences.flatten(), minlength=symbols).double() + smooth
        emission = rows(states, symbols) * frequency
        model = cls(rows(states), rows(states, states), emission / emission.sum(-1, keepdim=True))
        for _ in range(rounds):
            model = model._improved(sequences, smooth)
        return model

    def log_prob(self, sequences: Tensor) -> Tensor:
        """Log-probability of sequences ``[n, T]``: float64 ``[n]``, nats."""
        total = torch.zeros(len(sequences), dtype=torch.float64)
        state = self.initial.expand(len(sequences), -1)
        for t in range(sequences.shape[1]):
            joint = state * self.emission[:, sequences[:, t]].T
            scale = joint.sum(1, keepdim=True)
            total += scale[:, 0].log()
            state = (joint / scale) @ self.transition
        return total

    def _improved(self, sequences: Tensor, smooth: float) -> HiddenMarkov:
        n, length = sequences.shape
        forward, scales = [], []
        state = self.initial.expand(n, -1)
        for t in range(length):
            joint = state * self.emission[:, sequences[:, t]].T
            scales.append(joint.sum(1, keepdim=True))
            forward.append(joint / scales[-1])
            state = forward[-1] @ self.transition
        backward = torch.ones_like(forward[-1])
        emission = torch.full_like(self.emission, smooth)
        transition = torch.full_like(self.transition, smooth)
        for t in range(length - 1, -1, -1):
            emission.T.index_add_(0, sequences[:, t], forward[t] * backward)
            if t:
                ahead = self.emission[:, sequences[:, t]].T * backward / scales[t]
                transition += self.transition * (forward[t - 1].T @ ahead)
                backward = ahead @ self.transition.T
            else:
                initial = (forward[0] * backward).sum(0) + smooth
        return HiddenMarkov(
            initial / initial.sum(),
            transition / transition.sum(1, keepdim=True),
            emission / emission.sum(1, keepdim=True),
        )


class Automaton:
    """Which of several words, each given in one or more spellings, have occurred: a deterministic automaton.

    A state is the set of words found and the longest end of the text that begins a spelling (Aho and Corasick 1975).

    Args:
        clauses: for every word its spellings, each a sequence of symbols; one spelling must occur per word.
        stop: symbol behind which nothing counts any more.

    Attributes:
        moves: for every state, the symbols that do not lead to ``default``, with their destinations.
        default: destination of all other symbols, per state.
        accepting: whether all words have occurred, per state.
    """

    def __init__(self, clauses: Sequence[Sequence[Sequence[int]]], stop: int | None = None):
        words = [(c, tuple(w)) for c, clause in enumerate(clauses) for w in clause]
        if not words or any(not w for _, w in words) or any(not clause for clause in clauses):
            raise DataError("every word needs a spelling of at least one symbol")
        letters = sorted({x for _, w in words for x in w})
        full = frozenset(range(len(clauses)))
        heads = {w[:i] for _, w in words for i in range(len(w))}

        def move(found: frozenset[int], tail: tuple[int, ...], symbol: int) -> tuple[frozenset[int], tuple[int, ...]]:
            text = (*tail, symbol)
            met = found | {c for c, w in words if text[-len(w) :] == w}
            return met, next((text[i:] for i in range(len(text) + 1) if text[i:] in heads), ())

        start: tuple[frozenset[int], tuple[int, ...]] = (frozenset(), ())
        number, queue = {start: 0}, [start]
        self.moves: list[dict[int, int]] = []
        self.default: list[int] = []
        for state in queue:
            self.moves.append({})
            for symbol in (*letters, None):
                to = (state[0], ()) if symbol is None else move(*state, symbol)
                if to not in number:
                    number[to] = len(queue)
                    queue.append(to)
                if symbol is None:
                    self.default.append(number[to])
                else:
                    self.moves[-1][symbol] = number[to]
        self.accepting = [found == full for found, _ in queue]
        if stop is not None:
            dead = len(queue)
            for i, done in enumerate(self.accepting):
                self.moves[i][stop] = i if done else dead
            self.moves.append({stop: dead})
            self.default.append(dead)
            self.accepting.append(False)

    def after(self, state: int, symbol: int) -> int:
        """The state after a symbol."""
        return self.moves[state].get(symbol, self.default[state])


def look_ahead(model: HiddenMarkov, automaton: Automaton, length: int) -> Tensor:
    """Chance that all words have occurred after l more symbols, given state and hidden state of the first of them.

    Returns:
        float64 ``[length + 1, states, H]``; entry (l, d, h) is for the automaton in state d and the next symbol drawn
        from hidden state h.
    """
    states = len(automaton.default)
    out = torch.zeros(length + 1, states, len(model.initial), dtype=torch.float64)
    out[0] = torch.tensor(automaton.accepting, dtype=torch.float64)[:, None]
    for left in range(1, length + 1):
        # What follows, given the hidden state that draws this symbol.
        ahead = out[left - 1] @ model.transition.T
        for d in range(states):
            special = automaton.moves[d]
            mass = model.emission[:, list(special)]
            others = (1 - mass.sum(1)).clamp(min=0) if len(special) < model.emission.shape[1] else 0.0
            total = others * ahead[automaton.default[d]]
            for i, to in enumerate(special.values()):
                total = total + mass[:, i] * ahead[to]
            out[left, d] = total
    return out


@dataclass(frozen=True)
class Keywords:
    """A guide (:class:`ancestral.decoding.guides.Guided`): all words occur in what is drawn behind the prefix.

    Args:
        model: distilled from the model that is guided; see :meth:`HiddenMarkov.fit`.
        clauses: for every word its spellings, each a sequence of symbols; one spelling must occur per word.
        weight: exponent of the hidden Markov model's probability (1: as if it were the model's own).
    """

    model: HiddenMarkov
    clauses: tuple[tuple[tuple[int, ...], ...], ...]
    weight: float = 1.0

    def start(self, generator: Generator, prefix: Tensor, length: int) -> Guiding:
        automaton = Automaton(self.clauses, generator.space.stop)
        table = look_ahead(self.model, automaton, length)
        guiding = _Looking(self.model, automaton, table, self.weight)
        for symbol in prefix.tolist():
            guiding.advance(symbol, counted=False)
        if not float(guiding.chance()) > 0:
            raise DataError(f"the words do not fit into {length} symbols; give a larger length or fewer words")
        return guiding


@dataclass(frozen=True)
class Containing:
    """Draws items that contain given words, with a hidden Markov model that is distilled when it is first needed.

    The hidden Markov model is learned from ``samples`` of the model and is the same for the same weights. Where a
    window moves on, the words have to occur in each.

    Args:
        tokenizer: spells the words.
        words: each a text, with a space before it or not, or in models of sequences a symbol; a tuple in place of one
            holds alternatives, each of which may be a list of symbols. No words leave the draws as they are.
        states, samples, rounds: of :meth:`HiddenMarkov.fit`.
        weight: as for :class:`Keywords`.
    """

    tokenizer: SequenceTokenizer
    words: tuple[Any, ...] = ()
    states: int = 32
    samples: int = 512
    rounds: int = 20
    weight: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.words, str):
            raise DataError(f"words={self.words!r} must be a tuple of words: ({self.words!r},)")
        for name in ("states", "samples"):
            check_range("words", name, getattr(self, name), 1)
        check_range("words", "rounds", self.rounds, 0)

    _known: WeakKeyDictionary[Generator, tuple[tuple[int, ...], HiddenMarkov]] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    def __call__(self, generator: Generator, request: Request) -> Tensor:
        if not self.words:
            return Ancestral()(generator, request)
        clauses = tuple(self._spellings(word) for word in self.words)
        return Guided(Keywords(self.distilled(generator), clauses, self.weight))(generator, request)

    def distilled(self, generator: Generator) -> HiddenMarkov:
        """The hidden Markov model of a generator, learned anew if its weights have changed."""
        weights = (*generator.parameters(), *generator.buffers())
        state = tuple(version for w in weights for version in (w.data_ptr(), w._version))
        if generator not in self._known or self._known[generator][0] != state:
            parts = [min(256, self.samples - i) for i in range(0, self.samples, 256)]
            noise = [Noise.of(0, size, 256 * i) for i, size in enumerate(parts)]
            drawn = torch.cat([Ancestral()(generator, Request(each)) for each in noise])
            model = HiddenMarkov.fit(drawn, generator.space.largest, self.states, self.rounds)
            self._known[generator] = (state, model)
        return self._known[generator][1]

    def _spellings(self, word: Any) -> tuple[tuple[int, ...], ...]:
        each = tuple(word) if isinstance(word, (tuple, list)) else (word,)
        if self.tokenizer.modality == "text":
            if not all(isinstance(w, str) for w in each):
                raise DataError(f"the word {word!r} is no text")
            each = (*each, *(f" {w}" for w in each if not w.startswith(" ")))
        else:
            each = tuple([w] if isinstance(w, (str, int)) else w for w in each)
        return tuple(dict.fromkeys(self.tokenizer.symbols(w) for w in each))


class _Looking:
    def __init__(self, model: HiddenMarkov, automaton: Automaton, table: Tensor, weight: float):
        self.model, self.automaton, self.table, self.weight = model, automaton, table, weight
        self.hidden, self.state, self.left = model.initial, 0, len(table) - 1

    def chance(self) -> Tensor:
        """Probability of the constraint given what has been drawn."""
        return self.hidden @ self.table[self.left, self.state]

    def adjust(self, log_probs: Tensor) -> Tensor:
        joint = self.hidden[:, None] * self.model.emission  # [H, K]
        follows = self.table[self.left - 1] @ self.model.transition.T
        seen = joint.sum(0)
        chance = (joint * follows[self.automaton.default[self.state]][:, None]).sum(0)
        for symbol, to in self.automaton.moves[self.state].items():
            chance[symbol] = joint[:, symbol] @ follows[to]
        ratio = torch.where(seen > 0, chance / seen, 0.0).clamp(max=1.0)
        return log_probs + (self.weight * ratio.log()).to(log_probs)

    def advance(self, value: int, counted: bool = True) -> None:
        joint = self.hidden * self.model.emission[:, value]
        self.hidden = (joint / joint.sum()) @ self.model.transition
        if counted:
            self.state, self.left = self.automaton.after(self.state, value), self.left - 1
