"""Batches side by side on the cores give what one batch after the other gives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ancestral.decoding.batches import run_batches
from ancestral.decoding.decoders import Ancestral, draw_values
from ancestral.decoding.scoring import score_values
from ancestral.generator import Generator
from ancestral.heads.base import draw_categories
from ancestral.heads.ragged import Counted, RaggedCategorical
from ancestral.networks.columns import ColumnNetwork
from ancestral.noise import Noise
from ancestral.order import RandomOrders
from ancestral.space import Condition, Lexicon, Space

SPACE = Space((5,), (2, 3, 2, 2, 3), groups=((0, 1, 2),), lexicons=(Lexicon((0, 1, 2), True),))


@pytest.fixture
def generator() -> Generator:
    random = np.random.default_rng(0)
    values = torch.from_numpy(np.stack([random.integers(0, k, 200) for k in (2, 3, 2, 2, 3)], 1))
    torch.manual_seed(0)
    made = Generator(ColumnNetwork(8, 12, 1, 0.0, 2), RaggedCategorical(), RandomOrders("raster", 0.5)).build(SPACE)
    made.prepare(values, values[:0])
    made.eval()
    made.settle()
    return made


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def drawn(generator: Generator, n: int, batch_size: int | None) -> torch.Tensor:
    numbers, told = (
        torch.arange(n),
        {"seed": 3, "condition": Condition(), "order": None, "guidance": 0.0, "options": {}},
    )
    return draw_values(generator, Ancestral(), numbers, batch_size=batch_size, **told)  # type: ignore[arg-type]


@pytest.mark.usefixtures("threads")
def test_batches_on_two_cores_change_nothing(generator: Generator) -> None:
    many = drawn(generator, 1500, None)
    assert torch.equal(many, drawn(generator, 1500, 7))
    assert torch.equal(many[:20], drawn(generator, 20, None))
    scores = score_values(generator, many, condition=Condition())
    assert torch.allclose(scores, score_values(generator, many, condition=Condition(), batch_size=1), atol=1e-5)
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("n", [0, 1, 255, 600, 20000])
def test_every_item_is_in_one_batch_and_in_order(generator: Generator, n: int) -> None:
    parts = run_batches(generator, n, None, lambda index: index)
    assert torch.equal(torch.cat([torch.zeros(0, dtype=torch.int64), *parts]), torch.arange(n))
    assert all(len(p) <= generator.network.batch for p in parts)


@pytest.mark.usefixtures("threads")
def test_no_gradients_and_errors_come_through(generator: Generator) -> None:
    assert not any(run_batches(generator, 4, 1, lambda index: torch.tensor(torch.is_grad_enabled())))

    def fail(index: torch.Tensor) -> torch.Tensor:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_batches(generator, 4, 1, fail)
    assert torch.get_num_threads() == 2


def test_words_hashed_together_are_those_of_single_calls() -> None:
    one, three = Noise.of(5, 7), Noise.of(5, 7)
    for _ in range(40):
        assert torch.equal(one.bits(1), three.bits(3)[:, :1])
    one.counter = three.counter = 12  # a stream may be set back
    assert torch.equal(one.uniform(1, 1)[:, 0], three.uniform(2)[:, :1])


def test_counted_sites_are_drawn_as_their_distribution_says(generator: Generator) -> None:
    head = generator.head
    assert isinstance(head, RaggedCategorical)
    features = torch.tensor([[c, e, *[0.0] * 6] for c in (-1.0, 0, 1) for e in (-1.0, 0, 1, 2)]).repeat(50, 1)
    for site in (1, 2):
        leaf = head(features[:, None], torch.tensor([site]))
        assert isinstance(leaf, Counted)
        got, noise = leaf.draw(Noise.of(1, len(features))), Noise.of(1, len(features))
        assert torch.equal(got, draw_categories(leaf.logits, noise))
        assert torch.allclose(leaf.log_prob(got), leaf.log_probs().gather(-1, got[..., None])[..., 0], atol=1e-6)
