"""Per-column layers, listed values and what rows that share one tell about each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import ancestral
from ancestral.data import read
from ancestral.generator import Generator
from ancestral.heads.ragged import RaggedCategorical, evidence_prior
from ancestral.laws.features import check_causality
from ancestral.networks.columns import ColumnNetwork
from ancestral.order import Order, RandomOrders
from ancestral.recipes.toys import enumerate_values
from ancestral.space import Lexicon, Space
from ancestral.tokenizers import Columns

# A coarse site, its list of two values and "not listed", a digit, and two ordinary columns.
SPACE = Space((5,), (2, 3, 2, 2, 3), groups=((0, 1, 2),), lexicons=(Lexicon((0, 1, 2), True),))


def rows(n: int = 60, seed: int = 0) -> Tensor:
    """Rows in which the listed value tells the other columns; digits only where nothing is listed."""
    random = np.random.default_rng(seed)
    coarse, entry = random.integers(0, 2, n), random.integers(0, 3, n)
    digit = np.where(entry == 2, random.integers(0, 2, n), (coarse + entry) % 2)  # a listed value has one spelling
    return torch.from_numpy(np.stack([coarse, entry, digit, (coarse + entry) % 2, (entry + coarse) % 3], 1))


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    made = Generator(ColumnNetwork(8, 12, 1, 0.0, 2), RaggedCategorical(), RandomOrders("raster", 0.5)).build(SPACE)
    made.prepare(rows(), rows(20, 1))
    made.eval()
    made.settle()
    return made


ORDERS = [Order.raster(5), Order.reverse(5), Order.random(5, 3), Order.single(5), Order(torch.tensor([0, 0, 1, 1, 2]))]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: str(order.rank.tolist()))
def test_laws_hold_with_listed_values(generator: Generator, order: Order) -> None:
    values = enumerate_values(SPACE)
    check_causality(generator, values[::7][:6], order)
    with torch.no_grad():
        features = generator.network(values, order)
        cache, last = generator.network.start(len(values), order), None
        for sites in order.sets:
            step = generator.network.step(cache, last)
            assert torch.allclose(step, features[:, sites], atol=1e-5)
            last = values[:, sites]
        total = generator.log_prob(values, order).double().sum(1).exp().sum()
    assert abs(float(total) - 1) < 1e-5


def test_digits_of_listed_values_cost_nothing(generator: Generator) -> None:
    values = rows()
    each = generator.log_prob(values, Order.raster(5)).detach()
    listed = values[:, 1] < 2
    assert float(each[listed, 2].abs().max()) < 1e-6
    assert bool((each[~listed, 2] < -0.1).all())


def test_entries_are_counted_given_the_coarse_value() -> None:
    torch.manual_seed(0)
    made = Generator(ColumnNetwork(8, 12, 1, 0.0, 2), RaggedCategorical(), RandomOrders("raster", 0.5)).build(SPACE)
    # Coarse value 0: entry 0 three times, entry 1 once, and nothing unlisted: n1 = 1, n2 = 0, so the discount is 1.
    values = torch.tensor([[0, 0, 0, 0, 0]] * 3 + [[0, 1, 0, 0, 0]])
    made.prepare(values, values[:0])
    chances = made.head(made.network(values, Order.raster(5)), torch.tensor([1])).log_probs().exp()[0, 0]
    assert torch.allclose(chances, torch.tensor([2.0, 0.0, 2.0]) / 4, atol=1e-4)


def test_a_row_is_no_neighbour_of_itself_in_training() -> None:
    torch.manual_seed(0)
    network = ColumnNetwork(8, 12, 1, 0.0, 2).build(SPACE)
    profile = network.profiles[0]
    values = torch.tensor([[0, 0, 0, 1, 2], [0, 0, 0, 0, 1], [1, 1, 0, 1, 1]])
    profile.prepare(values, values[:0])
    profile.train()
    trained = profile(values)
    # The third has its value alone: in training it has no neighbours, like a value never met.
    assert torch.equal(trained[2], profile.count.weight[0])
    profile.eval()
    settled = profile(values)
    assert not torch.equal(settled[2], profile.count.weight[0])
    profile.settle()
    assert torch.allclose(profile(values), settled)
    # The first two are each other's only neighbours.
    one = profile.embed(values[:2], torch.arange(5)) * network.speaks[:, None]
    assert torch.allclose(trained[0], one[1].sum(0) + profile.count.weight[1], atol=1e-6)


def test_held_out_rows_become_neighbours_only_when_training_is_over() -> None:
    torch.manual_seed(0)
    profile = ColumnNetwork(8, 12, 1, 0.0, 2).build(SPACE).profiles[0]
    values, held = torch.tensor([[0, 0, 0, 1, 2]]), torch.tensor([[1, 1, 0, 1, 1]])
    profile.prepare(values, held)
    profile.eval()
    assert torch.equal(profile(held)[0], profile.count.weight[0])
    profile.settle()
    assert not torch.allclose(profile(held)[0], profile.count.weight[0])


def test_evidence_prefers_what_the_counts_show() -> None:
    uniform = torch.full((50, 10), 20.0, dtype=torch.float64)
    peaked = torch.zeros(50, 10, dtype=torch.float64)
    peaked[torch.arange(50), torch.arange(50) % 10] = 200
    assert evidence_prior(uniform) > 30 * evidence_prior(peaked)


def weights(n: int, seed: int = 0) -> dict[str, list[str]]:
    """A wide number of which every value is met about twice, and which tells the sex."""
    random = np.random.default_rng(seed)
    number = random.integers(10_000, 900_000, n // 2)[random.integers(0, n // 2, n)]
    return {"age": [str(a) for a in random.integers(20, 70, n)], "weight": number.astype(str).tolist(),
            "sex": ["f" if w % 2 else "m" for w in number.tolist()]}  # fmt: skip


def test_listed_values_come_back_and_tell_the_other_columns(tmp_path: object) -> None:
    import pandas as pd

    frame = pd.DataFrame(weights(2400)).astype({"age": int, "weight": int})
    train, test = frame[:2000], frame[2000:]
    model = ancestral.fit(
        train, recipe="tabular-argn", steps=300, batch_size=128, ema=0.98, width=16, sums=24, quiet=True
    )
    tokenizer = model.tokenizer
    assert isinstance(tokenizer, Columns)
    assert tokenizer.space.lexicons and tokenizer.site_names[0] == "weight"
    values, extra = tokenizer.encode_exact(read(test))
    assert tokenizer.decode_exact(values, extra).native().equals(test.reset_index(drop=True))
    site = tokenizer.columns["sex"].start
    bits = -model.log_prob(test, per_site=True).per_site[:, site] / math.log(2)
    met = test.weight.isin(train.weight).to_numpy()
    assert 0.3 < met.mean() < 0.95
    assert bits[met].mean() < 0.5 < 0.8 < bits[~met].mean()
    assert model.decompress(model.compress(test)).equals(test.reset_index(drop=True))
