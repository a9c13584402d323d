"""Counts of strings and their mixture with a network: chances that sum to 1, follow the past only, and are coded."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import ancestral
from ancestral.coding import decode_stream_set, encode_stream_set, unpack
from ancestral.decoding.decoders import Confidence
from ancestral.decoding.dynamic import dynamic_log_prob
from ancestral.decoding.mixing import NGramMixture
from ancestral.decoding.ngrams import History, StringCounts, gather
from ancestral.decoding.streams import stream_log_prob
from ancestral.errors import DataError, StreamError, UnsupportedError
from ancestral.generator import Generator
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.recipes.registry import find
from ancestral.space import Space

K = 4
symbols = st.lists(st.integers(0, K - 1), max_size=40)
few = settings(max_examples=40, deadline=None)


def chances(history: History) -> np.ndarray:
    return gather(history.counts, [history]).predict()[0][0]


def read(counts: StringCounts, past: list[int]) -> History:
    history = History(counts)
    for symbol in past:
        history.append(symbol)
    return history


@few
@given(symbols, st.integers(1, 4))
def test_counts_are_those_of_the_strings(stream: list[int], order: int) -> None:
    counts = StringCounts.of(np.array(stream, np.int64), K, order)
    for length in range(1, order + 2):
        strings = [tuple(stream[i : i + length]) for i in range(len(stream) - length + 1)]
        longer = {tuple(stream[i : i + length + 1]) for i in range(len(stream) - length)}
        left = Counter(s[1:] for s in longer)
        left[tuple(stream[:length])] += 1  # the start of the stream, as one more neighbour
        for string, seen in Counter(strings).items():
            number = np.zeros(1, np.int64)
            for symbol in string:
                number = counts.children(number, symbol)
            assert counts.seen[number[0]] == seen
            assert counts.distinct[number[0]] == (seen if length == order + 1 else left[string])
    assert len(counts.key) == 1 + sum(
        len({tuple(stream[i : i + n]) for i in range(len(stream) - n + 1)}) for n in range(1, order + 2)
    )


@few
@given(symbols, symbols, st.integers(1, 4))
def test_every_length_of_context_gives_chances(memory: list[int], past: list[int], order: int) -> None:
    found = chances(read(StringCounts.of(np.array(memory, np.int64), K, order), past))
    assert found.shape == (order, K)
    assert (found > 0).all()
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-12)


@few
@given(symbols)
def test_reading_a_stream_counts_as_having_learnt_it(past: list[int]) -> None:
    nothing = StringCounts.of(np.zeros(0, np.int64), K, 3)
    learnt = StringCounts.of(np.array(past, np.int64), K, 3)
    online = read(nothing, past)
    for string, (kinds, seen, distinct) in online._nodes.items():
        number = np.zeros(1, np.int64)
        for symbol in string:
            number = learnt.children(number, symbol)
        known = learnt.node(int(number[0])) if number[0] >= 0 else ([], [], [])
        assert sorted(zip(kinds, seen, distinct)) == sorted(zip(*known))


def network(order: int = 3, mixture: bool = True, width: int = 8, n: int = 6, seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    part = NGramMixture(order, hidden=4) if mixture else None
    generator = Generator(CausalTransformer(width, 1, 1, targets=False), Categorical(per_site=False), mixture=part)
    return generator.build(Space((n,), K)).eval()


def fitted(order: int = 3, n: int = 6) -> Generator:
    generator = network(order, n=n)
    assert generator.mixture is not None
    flow = torch.from_numpy(np.random.default_rng(0).integers(0, 2, 260)).cumsum(0) % K
    generator.mixture.fit(flow[:200], flow[200:], lambda s: iter([uneven(s)]), steps=60)
    return generator


def uneven(stream: Tensor) -> Tensor:
    """A stand-in for a network that knows the symbols' shares."""
    return torch.log_softmax(torch.arange(K).float(), 0).expand(len(stream), K)


streams = st.lists(st.integers(0, K - 1), max_size=25).map(lambda s: torch.tensor(s, dtype=torch.int64))
GENERATOR = fitted()


@few
@given(streams)
def test_the_mixture_sums_to_one_over_all_next_symbols(past: Tensor) -> None:
    ends = [stream_log_prob(GENERATOR, torch.cat([past, torch.tensor([k])]), 3)[-1] for k in range(K)]
    assert float(torch.stack(ends).exp().sum()) == pytest.approx(1, abs=1e-6)


@few
@given(streams, streams, streams)
def test_chances_depend_on_the_past_only(past: Tensor, one: Tensor, other: Tensor) -> None:
    first = stream_log_prob(GENERATOR, torch.cat([past, one]), 3)[: len(past)]
    second = stream_log_prob(GENERATOR, torch.cat([past, other]), 3)[: len(past)]
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


@few
@given(st.lists(streams, min_size=1, max_size=3), st.sampled_from([1, 2, None]), st.integers(1, 4))
def test_streams_come_back_from_their_code(parts: list[Tensor], lanes: int | None, batch: int) -> None:
    blob = encode_stream_set(GENERATOR, parts, 3, lanes=lanes, batch_size=batch)
    back, _ = decode_stream_set(GENERATOR, blob)
    assert all(torch.equal(a, b) for a, b in zip(back, parts, strict=True))


def test_the_code_is_as_long_as_the_chances_say() -> None:
    stream = torch.arange(300) * 7 % 5 % K
    bits = -float(stream_log_prob(GENERATOR, stream, 3).sum()) / math.log(2)
    assert abs(unpack(encode_stream_set(GENERATOR, [stream], 3, lanes=1)).code_bits - bits) <= 0.01 * bits + 64


def test_a_mixture_that_has_seen_nothing_is_the_network() -> None:
    stream = torch.arange(50) % K
    torch.testing.assert_close(
        stream_log_prob(network(), stream, 3), stream_log_prob(network(mixture=False), stream, 3), atol=1e-5, rtol=0
    )


def test_another_memory_cannot_decode() -> None:
    blob = encode_stream_set(GENERATOR, [torch.arange(40) % K], 3)
    other = fitted()
    assert other.mixture is not None
    other.mixture.memory[0] = (other.mixture.memory[0] + 1) % K
    with pytest.raises(StreamError, match="another model"):
        decode_stream_set(other, blob)


def test_repeats_within_a_stream_become_cheap() -> None:
    generator = fitted(order=4)
    phrase = torch.from_numpy(np.random.default_rng(5).integers(0, K, 30))
    each = stream_log_prob(generator, phrase.repeat(6), 3).reshape(6, 30)
    assert float(each[-1].mean()) > float(each[0].mean()) + 0.3


TEXT = "the cat sat on the mat and the dog sat on the log; " * 40


@pytest.fixture(scope="module")
def model() -> Model:
    made = find("gpt")(width=16, depth=1, heads=1, dropout=0.0, length=32, ngrams=4)
    return made.fit([TEXT], validation=0.1, steps=20, quiet=True)


def test_text_is_more_probable_with_counts_and_survives_saving(model: Model, tmp_path: Path) -> None:
    plain = find("gpt")(width=16, depth=1, heads=1, dropout=0.0, length=32)
    plain.fit([TEXT], validation=0.1, steps=20, quiet=True)
    other = "the dog sat on the mat; the cat sat on the log; "
    assert float(model.log_prob([other])[0]) > 0.5 * float(plain.log_prob([other])[0])
    model.save(tmp_path / "model")
    loaded = ancestral.load(tmp_path / "model")
    assert np.array_equal(model.log_prob([other]), loaded.log_prob([other]))
    assert model.sample(3, seed=1, length=40) == loaded.sample(3, seed=1, length=40)
    assert loaded.decompress(model.compress([other, TEXT[:70]])) == [other, TEXT[:70]]


def test_what_was_held_out_of_the_data_is_remembered_in_the_end(model: Model) -> None:
    memory = model.generator.mixture.memory
    assert bytes(memory.tolist()).decode() == TEXT
    own = find("gpt")(width=16, depth=1, heads=1, dropout=0.0, length=32, ngrams=4)
    own.fit([TEXT], validation=["and the log sat on the dog; " * 5], steps=2, quiet=True)
    assert bytes(own.generator.mixture.memory.tolist()).decode() == TEXT


def test_samples_do_not_depend_on_the_batch(model: Model) -> None:
    together = model.sample(5, seed=2, length=50)
    assert together == [model.sample(1, seed=2, first=i, length=50)[0] for i in range(5)]


def test_samples_follow_the_scores() -> None:
    """The two symbols behind a given past, by frequency and by score."""
    from ancestral.decoding.streams import continue_streams
    from ancestral.noise import item_seeds

    past, draws = torch.tensor([0, 1, 1, 2, 3]), 1500
    seeds = item_seeds(3, torch.arange(draws))
    drawn = continue_streams(GENERATOR, [past] * draws, 2, 3, seeds, 1000, {})
    found = Counter(tuple(d[-2:].tolist()) for d in drawn)
    from scipy.stats import chisquare

    pairs = [(i, j) for i in range(K) for j in range(K)]
    score = [stream_log_prob(GENERATOR, torch.cat([past, torch.tensor(p)]), 3)[-2:].sum().exp() for p in pairs]
    expected = np.array(score) / np.sum(score) * draws
    assert chisquare([found[p] for p in pairs], expected).pvalue > 1e-3


def test_a_decoder_that_does_not_know_of_the_mixture_is_refused(model: Model) -> None:
    with pytest.raises(UnsupportedError, match="network alone"):
        model.sample(1, length=5, decoder=Confidence())


def test_what_cannot_be_mixed_is_refused() -> None:
    with pytest.raises(DataError, match="streaming=True"):
        find("gpt")(streaming=False, ngrams=3)
    with pytest.raises(ValueError, match="at least 1"):
        NGramMixture(0)
    with pytest.raises(ValueError, match="streams"):
        NGramMixture(2).build(Space((4,), 3, stop=2))
    with pytest.raises(DataError, match="more text"):
        mixture = NGramMixture(2).build(Space((4,), K))
        mixture.fit(torch.zeros(3, dtype=torch.int64), None, lambda s: iter([uneven(s)]))


def test_dynamic_evaluation_learns_from_the_past_only() -> None:
    stream = torch.arange(80) * 3 % 5 % K
    for generator in (network(mixture=False), GENERATOR):
        before = {name: value.clone() for name, value in generator.state_dict().items()}
        static = stream_log_prob(generator, stream, 3)
        torch.testing.assert_close(dynamic_log_prob(generator, stream, 3, 0.0), static)
        moved = dynamic_log_prob(generator, stream, 3, 0.3)
        torch.testing.assert_close(moved[:6], static[:6], atol=1e-5, rtol=0)
        assert not torch.allclose(moved, static, atol=1e-3)
        other = torch.cat([stream[:40], (stream[40:] + 1) % K])
        torch.testing.assert_close(dynamic_log_prob(generator, other, 3, 0.3)[:40], moved[:40], atol=1e-5, rtol=0)
        assert all(torch.equal(before[name], value) for name, value in generator.state_dict().items())
    assert float(dynamic_log_prob(network(mixture=False), stream, 3, 0.3).mean()) > float(
        stream_log_prob(network(mixture=False), stream, 3).mean()
    )
    with pytest.raises(ValueError, match="rate"):
        dynamic_log_prob(GENERATOR, stream, 3, -1.0)
