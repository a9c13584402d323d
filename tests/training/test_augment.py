"""Warps of training images, and objectives that use them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ancestral.augment import Augmented, Warp
from ancestral.generator import Generator
from ancestral.noise import Noise
from ancestral.space import Condition, Space

SPACE = Space((8, 8), 17, ordinal=True)


def strokes() -> Tensor:
    """Images of a slanted stroke each, as shares of ink: int64 ``[6, 64]``."""
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    inside = [((x - 12 - k - (y - 16) * 0.2 * (k - 2)).abs() < 3 + k % 2) & (y > 2) & (y < 29) for k in range(6)]
    fine = torch.stack(inside).float()
    return (16 * fine.reshape(6, 8, 4, 8, 4).mean((2, 4))).round().long().reshape(6, 64)


def test_an_outline_explains_the_levels() -> None:
    values = strokes()
    still = Warp(0, 0, 0, 0, 0, ink=True, weight=0)(values, SPACE, Noise.of(0, 6))
    assert float((still - values).abs().float().mean()) < 0.35
    assert float((still == values).float().mean()) > 0.8


@pytest.mark.parametrize("ink", [False, True])
def test_warps_move_ink_a_little_and_keep_it(ink: bool) -> None:
    values = strokes().repeat(20, 1)
    moved = Warp(ink=ink)(values, SPACE, Noise.of(1, len(values)))
    assert moved.dtype == torch.int64 and moved.shape == values.shape
    assert int(moved.min()) >= 0 and int(moved.max()) <= 16
    assert float((moved != values).any(1).float().mean()) > 0.95
    ratio = float(moved.sum()) / float(values.sum())
    assert 0.9 < ratio < 1.1
    centre = torch.arange(8.0)
    across = lambda v: (v.reshape(-1, 8, 8).sum(1) * centre).sum(1) / v.sum(1)  # noqa: E731
    assert float((across(moved) - across(values)).abs().max()) < 1.2


def test_a_pure_shift_goes_as_far_as_told() -> None:
    values = strokes()
    moved = Warp(0, 0, 0, 0.125, 0)(values, SPACE, Noise.of(3, 6)).reshape(6, 8, 8).float()
    centre = torch.arange(8.0)
    went = (moved.sum(1) * centre).sum(1) / moved.sum((1, 2))
    went = went - (values.reshape(6, 8, 8).sum(1) * centre).sum(1) / values.sum(1)
    u = 2 * Noise.of(3, 6).uniform(6).float()[:, 4] - 1
    torch.testing.assert_close(went, -u, atol=0.25, rtol=0)  # a share of 0.125 of the width is one pixel
    assert float(u.abs().max()) > 0.5


def test_an_item_is_warped_alike_in_any_batch() -> None:
    values, warp = strokes(), Warp(ink=True)
    whole = warp(values, SPACE, Noise.of(5, 6))
    alone = warp(values[4:5], SPACE, Noise.of(5, 1, first=4))
    torch.testing.assert_close(whole[4:5], alone)


def test_channels_move_together() -> None:
    space = Space((8, 8), 17, event=(3,), ordinal=True)
    grey = strokes()
    moved = Warp()(grey[..., None].repeat(1, 1, 3), space, Noise.of(2, 6))
    assert (moved[..., 0] == moved[..., 2]).all() and (moved[..., 0] == Warp()(grey, SPACE, Noise.of(2, 6))).all()


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="grids"):
        Warp()(torch.zeros(2, 5, dtype=torch.long), Space((5,), 3), Noise.of(0, 2))
    with pytest.raises(ValueError, match="shares"):
        Augmented(None, Warp(), share=1.5)  # type: ignore[arg-type]


class _Spy:
    """An objective that keeps what it was given."""

    def loss(self, generator: Generator, values: Tensor, condition: Condition, noise: Noise, progress: float) -> Tensor:
        self.values, self.condition, self.next = values, condition, noise.uniform(1)
        return values.float().mean()


class _Module(torch.nn.Module):
    space = SPACE


def test_only_training_items_change_and_the_model_is_told_which() -> None:
    spy, module, values = _Spy(), _Module(), strokes().repeat(50, 1)
    objective = Augmented(spy, Warp(ink=True), share=0.4, until=0.9)
    before = values.clone()
    objective.loss(module.train(), values, Condition(), Noise.of(0, 300), 0.5)  # type: ignore[arg-type]
    assert (values == before).all(), "the caller's items were changed in place"
    altered, drawn = spy.condition.altered, spy.next
    assert altered is not None and 0.3 < float(altered.float().mean()) < 0.5
    assert (spy.values[~altered] == values[~altered]).all()
    assert float((spy.values[altered] != values[altered]).any(1).float().mean()) > 0.9
    for mode, progress in ((False, 0.5), (True, 0.95)):
        objective.loss(module.train(mode), values, Condition(), Noise.of(0, 300), progress)  # type: ignore[arg-type]
        assert spy.condition.altered is None and (spy.values == values).all()
    again = Noise.of(0, 300)
    objective.loss(module.train(), values, Condition(), again, 0.1)  # type: ignore[arg-type]
    torch.testing.assert_close(spy.next, drawn)  # the same numbers follow at any share of training
