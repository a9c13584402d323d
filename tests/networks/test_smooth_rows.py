"""Weights of ordered symbols, and dropout from few random bits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from ancestral.data import read
from ancestral.heads.ragged import RaggedCategorical
from ancestral.networks.dropout import dropped
from ancestral.smooth import SmoothRows
from ancestral.space import Space
from ancestral.tokenizers import Columns

SPACE = Space((3,), (3, 40, 2), ordered=(1,))


def test_neighbours_start_alike_and_unordered_symbols_do_not():
    torch.manual_seed(0)
    table = torch.randn(45, 500)
    smooth = SmoothRows(SPACE, table, 0.5)
    added = smooth()
    assert torch.equal(added[:3], torch.zeros(3, 500)) and torch.equal(added[43:], torch.zeros(2, 500))
    own = added[3:43]
    assert torch.equal(own, smooth.rows(1))
    near, far = (own[1:] - own[:-1]).norm(dim=1).mean(), (own[20:] - own[:20]).norm(dim=1).mean()
    assert near < far / 5
    assert own.std().item() == pytest.approx(0.5, rel=0.1)
    # The table's own start is made small where the waves speak.
    assert table[3:43].std().item() == pytest.approx(0.1, rel=0.05)
    assert table[:3].std().item() == pytest.approx(1.0, rel=0.1)


def test_a_head_gives_one_site_the_weights_that_it_gives_all():
    torch.manual_seed(0)
    head = RaggedCategorical().build(SPACE, 6)
    features = torch.randn(5, 6)
    for site in range(3):
        alone = head.site_logits(features, site)
        torch.testing.assert_close(alone, head.site_logits(features, site, head.maps()), rtol=0, atol=1e-6)


def test_numbers_are_ordered_and_words_are_not():
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "number": random.integers(0, 60, 500),
            "word": random.choice([f"w{i}" for i in range(40)], 500),
            "few": random.integers(0, 5, 500),
        }
    )
    columns = Columns().fit(read(frame, "table"))
    assert columns.space.ordered == (columns.columns["number"].start,)
    assert Space.from_json(columns.space.to_json()) == columns.space
    older = {k: v for k, v in columns.space.to_json().items() if k != "ordered"}
    assert Space.from_json(older).ordered == ()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(share: float):
    torch.manual_seed(0)
    x = torch.ones(300, 333, requires_grad=True)
    y = dropped(x, share, True)
    assert (y == 0).float().mean().item() == pytest.approx(share, abs=0.01)
    assert y.mean().item() == pytest.approx(1.0, abs=0.03)
    y.sum().backward()
    assert torch.equal(x.grad, y)  # of ones, the factor is the gradient
    # Bits of one word are independent: neighbours are dropped together as often as chance has it.
    gone = (y == 0).float().view(-1)
    assert (gone[1:] * gone[:-1]).mean().item() == pytest.approx(share**2, abs=0.01)


def test_dropout_follows_the_seed_and_rests_outside_training():
    x = torch.randn(7, 5)
    assert dropped(x, 0.5, False) is x and dropped(x, 0.0, True) is x
    torch.manual_seed(3)
    first = dropped(x, 0.5, True)
    torch.manual_seed(3)
    assert torch.equal(first, dropped(x, 0.5, True))
    assert dropped(torch.zeros(0, 4), 0.5, True).shape == (0, 4)
