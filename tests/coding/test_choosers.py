from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral.coding import choosers
from ancestral.coding.choosers import Aligned, Decode, Encode, Reporting
from ancestral.errors import StreamError, UnsupportedError
from ancestral.heads.base import Finite
from ancestral.heads.gaussian import MixtureDensity


def draw(logits: torch.Tensor, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    flat = torch.softmax(logits, -1).reshape(-1, logits.shape[-1])
    return torch.multinomial(flat, 1, generator=generator).reshape(logits.shape[:2])


def random_logits(*shape: int, scale: float = 3.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def code(leaf: Finite, values: torch.Tensor, alive: torch.Tensor | None = None) -> tuple[bytes, torch.Tensor]:
    encoder = Encode()
    encoder(leaf, values, alive)
    return encoder.words(), Decode(encoder.words())(leaf, None, alive)


@pytest.mark.parametrize("size", [2, 17, 256, 5000])
def test_length_is_that_of_the_probabilities(size):
    leaf = Finite(random_logits(20, 25, size))
    values = draw(leaf.logits)
    words, back = code(leaf, values)
    assert torch.equal(back, values)
    ideal = -leaf.log_prob(values).double().sum().item() / math.log(2)
    assert abs(8 * len(words) - ideal) < 0.002 * ideal + 64


def test_impossible_categories_cost_nothing():
    logits = random_logits(20, 25, 4096)
    logits[..., 5:] = -math.inf
    values = draw(logits)
    few, _ = code(Finite(logits[..., :5]), values)
    many, back = code(Finite(logits), values)
    assert torch.equal(back, values)
    assert len(many) - len(few) <= 4 + 0.001 * len(few)


def test_a_value_of_probability_zero_still_comes_back():
    logits = torch.full((1, 2, 3), -math.inf)
    logits[..., 0] = 0.0
    values = torch.tensor([[2, 1]])
    words, back = code(Finite(logits), values)
    assert torch.equal(back, values) and len(words) >= 6  # 2 values of 24 bits each


def test_a_single_category_is_free():
    leaf = Finite(torch.zeros(3, 4, 1))
    words, back = code(leaf, torch.zeros(3, 4, dtype=torch.int64))
    assert words == b"" and torch.equal(back, torch.zeros(3, 4, dtype=torch.int64))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_sites_that_do_not_count_are_skipped(data):
    b, s, k = (data.draw(st.integers(1, 5)) for _ in range(3))
    flags = data.draw(st.lists(st.booleans(), min_size=b * s, max_size=b * s))
    alive = torch.tensor(flags).reshape(b, s)
    leaf = Finite(random_logits(b, s, k, seed=data.draw(st.integers(0, 99))))
    values = draw(leaf.logits)
    words, back = code(leaf, values, alive)
    assert torch.equal(back, torch.where(alive, values, 0))
    encoder = Encode()
    assert torch.equal(encoder(leaf, values, alive), back)  # the network is fed the same on both sides
    if not any(flags):
        assert words == b""


def test_large_calls_are_cut_without_a_difference(monkeypatch):
    leaf = Finite(random_logits(7, 9, 11))
    values = draw(leaf.logits)
    whole, _ = code(leaf, values)
    monkeypatch.setattr(choosers, "_CHUNK", 50)  # 4 rows a piece
    pieces, back = code(leaf, values)
    assert pieces == whole and torch.equal(back, values)


def test_real_values_and_broken_models_are_refused():
    density = MixtureDensity(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), ())
    with pytest.raises(UnsupportedError, match="density cannot be coded losslessly; quantise"):
        Encode()(density, torch.zeros(1, 1), None)
    with pytest.raises(UnsupportedError, match="not numbers"):
        Encode()(Finite(torch.full((1, 1, 3), math.nan)), torch.zeros(1, 1, dtype=torch.int64), None)


def test_a_code_that_no_value_has_is_refused():
    with pytest.raises(StreamError, match="other probabilities"):
        Decode(b"\xff" * 12)(Finite(torch.zeros(1, 50, 3)), None, None)


def test_aligned_rows_end_on_their_own():
    truth = torch.tensor([[1, 2, 3], [2, 0, 0], [0, 1, 0]])
    left = torch.tensor([3, 1, 2])
    logits = random_logits(3, 3, 4)
    encoder = Encode()
    aligned = Aligned(encoder, left, truth)
    for column in range(3):
        aligned(Finite(logits[:, column : column + 1]), None, None)
    decoder = Aligned(Decode(encoder.words()), left)
    found = [decoder(Finite(logits[:, column : column + 1]), None, None) for column in range(3)]
    assert torch.equal(torch.cat(found, 1), truth)
    leaf = Finite(logits)
    alive = torch.arange(3)[None] < left[:, None]
    ideal = -torch.where(alive, leaf.log_prob(truth), 0.0).sum().item() / math.log(2)
    assert ideal - 1 <= 8 * len(encoder.words()) <= ideal + 64


def test_reporting_counts_what_is_alive():
    seen: list[tuple[int, int]] = []
    chooser = Reporting(Encode(), 10, lambda done, total: seen.append((done, total)))
    leaf, values = Finite(torch.zeros(2, 2, 3)), torch.zeros(2, 2, dtype=torch.int64)
    chooser(leaf, values, None)
    chooser(leaf, values, torch.tensor([[True, False], [True, True]]))
    assert seen == [(4, 10), (7, 10)]


def test_golden_code():
    # Exact probabilities, so that only the coder decides; a change here breaks every stream in the world.
    coder, numbers = Encode(), torch.arange(40)[None] % 4
    coder(Finite(torch.zeros(1, 40, 4)), numbers, None)
    assert coder.words().hex() == "1b1b1b1b5454141540395454"
