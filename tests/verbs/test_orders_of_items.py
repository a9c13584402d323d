"""An order per item: batches take the orders of their own items."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ancestral import Model
from ancestral.decoding.complete import complete_values
from ancestral.decoding.decoders import Ancestral
from ancestral.errors import DataError
from ancestral.noise import item_seeds
from ancestral.order import Order
from ancestral.recipes.registry import find
from ancestral.recipes.toys import toy
from ancestral.space import Condition

N = 7


@pytest.fixture(scope="module")
def model() -> Model:
    return find("any-order")(width=16, depth=1, heads=2).build(toy("grid4", 64), seed=3)


@pytest.fixture(scope="module")
def orders(model: Model) -> Order:
    random = torch.rand(N, model.space.n, generator=torch.Generator().manual_seed(0))
    return Order(torch.argsort(random, -1))


def test_samples_and_scores_follow_their_own_order(model: Model, orders: Order) -> None:
    drawn = model.sample(N, order=orders, batch_size=3)
    scores = model.log_prob(drawn, order=orders, batch_size=3)
    for i in range(N):
        mine = orders.items(slice(i, i + 1))
        assert (model.sample(1, first=i, order=mine)[0] == drawn[i]).all()
        np.testing.assert_allclose(model.log_prob(drawn[i : i + 1], order=mine), scores[i : i + 1], rtol=1e-5)
    assert not np.allclose(scores, model.log_prob(drawn))


def test_completions_follow_their_own_order(model: Model, orders: Order) -> None:
    images = toy("grid4", N).pixels
    known = np.random.default_rng(0).random((N, 4, 4)) < 0.5  # items with more and with fewer known pixels
    done = model.complete(images, known=known, order=orders, batch_size=2)
    assert (done[known] == images[known]).all()
    values, mask = torch.from_numpy(images.reshape(N, -1)).long(), torch.from_numpy(known.reshape(N, -1))
    for i in range(N):
        alone = complete_values(
            model.generator,
            values[i : i + 1],
            mask[i : i + 1],
            seeds=item_seeds(0, torch.tensor([i])),
            condition=Condition(),
            order=orders.items(slice(i, i + 1)),
            decoder=Ancestral(),
            guidance=0.0,
            options={},
        )
        assert (alone.values[0].numpy() == done[i].reshape(-1)).all()


def test_importance_takes_an_order_per_item() -> None:
    generator = find("gpt")(**find("gpt").tiny).build(toy("tokens", 64)).generator
    raster = generator.order.scoring()
    values, known = torch.tensor([[0, 1, 2], [1, 1, 2]]), torch.tensor([[False, False, True]] * 2)
    done = [
        complete_values(
            generator,
            values,
            known,
            seeds=item_seeds(0, torch.arange(2)),
            condition=Condition(),
            order=order,
            decoder=Ancestral(),
            guidance=0.0,
            options={},
            particles=4,
            batch_size=4,
        )
        for order in (raster, raster.expand(2))
    ]
    assert done[0].method == done[1].method == "importance"
    assert torch.equal(done[0].values, done[1].values)


def test_as_many_orders_as_items(model: Model, orders: Order) -> None:
    with pytest.raises(DataError, match="7 orders for 3 items"):
        model.sample(3, order=orders)
