"""What a training step remembers, and how large batches are taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ancestral
from ancestral.data import Images
from ancestral.fitting import Trainee, sources
from ancestral.recipes.registry import catalogue
from ancestral.training import Items, memory


class Squares(nn.Module):
    """Remembers its input once, and its parameter, which does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1000))

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator, progress: float) -> Tensor:
        rows = batch["x"] if progress < 1 else batch["x"][:, :10]
        return (rows * self.weight[: rows.shape[1]]).sum()


def test_bytes_are_those_of_one_item_where_most_is_learned() -> None:
    assert memory.remembered(Squares(), Items(x=torch.ones(7, 1000))) == 4000


def test_what_is_remembered_grows_with_the_image_and_nothing_is_left_behind() -> None:
    found = {}
    for side in (4, 8):
        data = Images(np.zeros((6, side, side, 1), np.uint8), levels=4)
        model = catalogue()["maskgit"](width=16, depth=2, heads=2, dropout=0.1).build(data)
        source, _ = sources(model.tokenizer, data, None, 0.0, 0)
        before = torch.random.get_rng_state()
        found[side] = memory.remembered(Trainee(model.generator.train()), source)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert all(p.grad is None for p in model.generator.parameters())
    assert 4 < found[8] / found[4] < 16  # four times as many places, each attending to four times as many


def test_long_sequences_do_not_keep_every_pair_of_places() -> None:
    found = {}
    for places in (1600, 3200):
        data = Images(np.zeros((1, 1, places, 1), np.uint8), levels=2)
        model = catalogue()["rar"](width=16, depth=1, heads=2, dropout=0.1).build(data)
        source, _ = sources(model.tokenizer, data, None, 0.0, 0)
        found[places] = memory.remembered(Trainee(model.generator.train()), source)
    assert found[3200] < 2.1 * found[1600]


def test_batches_are_cut_only_where_memory_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Items(x=torch.ones(7, 1000))
    assert memory.parts(Squares(), source, 64, 1000) == 1
    monkeypatch.setattr(memory, "LIMIT", 40_000)
    assert [memory.parts(Squares(), source, size, 1000) for size in (10, 11, 64)] == [1, 2, 7]
    monkeypatch.setattr(memory, "LIMIT", 1)
    assert memory.parts(Squares(), source, 64, 1000) == 64


def test_a_batch_in_parts_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 3, (24, 4, 4)).astype(np.uint8)
    options = {"width": 16, "depth": 2, "heads": 2, "dropout": 0.0, "batch_size": 8, "validation": 0, "quiet": True}
    whole = ancestral.fit(images, recipe="lantern", draft=1, steps=3, **options)
    monkeypatch.setattr(memory, "LIMIT", 50_000)
    cut = ancestral.fit(images, recipe="lantern", draft=1, steps=3, **options)
    ours, theirs = np.asarray(cut.log_prob(images)), np.asarray(whole.log_prob(images))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
    assert not np.array_equal(ours, theirs)  # it was cut, and adds in another order
