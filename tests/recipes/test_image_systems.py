"""What is particular to single image systems, beyond the laws."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ancestral.errors import DataError
from ancestral.laws import Exam, examine
from ancestral.networks.entities import EntityTransformer
from ancestral.noise import Noise
from ancestral.order import Order
from ancestral.recipes.image.next_patch_prediction import PatchLikelihood
from ancestral.recipes.registry import catalogue
from ancestral.recipes.toys import toy
from ancestral.space import Condition, Space
from ancestral.tokenizers.learned import KL, VQ, Autoencoder, Convolutional, LatentPyramid


def test_patches_shrink_to_single_codes() -> None:
    steps = PatchLikelihood(3, 0.5)
    assert [steps.side(p) for p in (0.0, 0.2, 0.26, 0.49, 0.5, 1.0)] == [4, 4, 2, 2, 1, 1]
    assert PatchLikelihood(1, 0.5).side(0.0) == 1


def test_a_patch_is_predicted_from_the_means_of_those_before() -> None:
    record = catalogue()["next-patch-prediction"]
    one = Exam(replace(record, tiny={**record.tiny, "patch": 1}), steps=20)
    generator, values = one.generator, one.items[:1]
    assert generator.space.shape == (4, 4)
    objective = PatchLikelihood(2, 0.5)

    def loss(codes: torch.Tensor, progress: float = 0.0) -> float:
        found = objective.loss(generator, codes.reshape(1, -1), Condition(), Noise.of(0, 1), progress)
        return float(found.detach())

    # Within a patch codes may trade places: neither the mean of the embeddings nor the one distribution notices.
    grid, traded, moved = (values.reshape(1, 4, 4).clone() for _ in range(3))
    grid[:, :2, :2] = torch.tensor([[0, 1], [2, 3]])
    traded[:, :2, :2] = torch.tensor([[3, 2], [1, 0]])
    moved[:, :2, 1:3] = torch.tensor([[3, 2], [1, 0]])
    assert loss(grid) == pytest.approx(loss(traded), abs=1e-5)
    assert loss(grid) != pytest.approx(loss(moved), abs=1e-3)
    # An image of one patch is scored by what the first place predicts, on each of its codes.
    small = Exam(record, steps=20)
    (codes,) = small.items[:1]
    first = small.generator.predict(codes[None], small.generator.order.scoring()).log_probs()[0, 0]  # type: ignore[attr-defined]
    found = objective.loss(small.generator, codes[None], Condition(), Noise.of(0, 1), 0.0)
    assert float(found.detach()) == pytest.approx(-float(first[codes].mean().detach()), abs=1e-5)
    assert loss(values, 1.0) == pytest.approx(-float(generator.log_prob(values).mean().detach()), abs=1e-5)


def test_patches_must_fit_the_codes() -> None:
    record = catalogue()["next-patch-prediction"]
    model = record(**{**record.tiny, "levels": 3})
    with pytest.raises(DataError, match="fewer levels"):
        model.fit(Exam(record).dataset, steps=10, quiet=True, validation=0, ema=None)


@functools.cache
def trained(name: str, **options: Any) -> Exam:
    record = catalogue()[name]
    one = Exam(replace(record, tiny={**record.tiny, **options}), steps=10)
    assert one.model is not None
    return one


@pytest.mark.parametrize("entity", ["patch", "subsample", "scale", "image"])
def test_entities_keep_the_laws_of_networks(entity: str) -> None:
    one = trained("xar", entity=entity)
    sizes = {"patch": (1,) * 16, "subsample": (4,) * 4, "scale": (1, 4, 16), "image": (16,)}
    assert one.generator.order.scoring().sizes == sizes[entity]
    for law in ("causality", "incremental", "completion"):
        result = examine(one, law)
        assert result.status in ("ok", "not applicable"), result.detail


def test_training_shows_noisy_entities() -> None:
    """With noisy context the true values of the entities before have no part in the loss; without, they have."""
    for noisy in (True, False):
        network = EntityTransformer(16, 1, 2, noisy=noisy).build(Space((4,), 0, event=(1,))).train()
        order, time = Order.raster(4), torch.full((1, 4), 0.5)
        now, values = torch.randn(1, 4, 1), torch.randn(1, 4, 1)
        found, other = (network.look_all(v, order, None, now, time) for v in (values, values + 1))
        assert torch.equal(found, other) == noisy
        network.eval()
        found, other = (network.look_all(v, order, None, now, time) for v in (values, values + 1))
        assert not torch.equal(found, other)


def test_maps_of_latents_are_their_averages() -> None:
    quantiser = LatentPyramid(KL(3)).build(7, 7)
    assert quantiser.scales == (1, 2, 4, 7)
    latents = torch.randn(2, 6, 7, 7, generator=torch.Generator().manual_seed(0))
    quantiser.finish(latents)
    codes = quantiser.encode(latents)
    assert codes.shape == (2, 1 + 4 + 16 + 49, 3)
    assert torch.allclose(codes[:, 0], codes[:, -49:].mean(1), atol=1e-5)
    assert torch.allclose(quantiser.decode(codes), latents[:, :3], atol=1e-5)
    cells = torch.zeros(1, 7, 7, dtype=torch.bool)
    cells[:, :4] = True
    assert quantiser.known(cells).sum() == 0 + 2 + 8 + 28
    with pytest.raises(ValueError, match="as high as wide"):
        LatentPyramid().build(4, 8)
    with pytest.raises(ValueError, match="last of scales"):
        LatentPyramid(scales=(1, 2)).build(4, 4)


def test_latents_that_no_cell_divides() -> None:
    record = catalogue()["xar"]
    with pytest.raises(DataError, match="side=3"):
        record(**{**record.tiny, "side": 3}).build(Exam(record).dataset)


@pytest.mark.parametrize("name", ["flowar", "xar"])
def test_known_pixels_stay_where_sets_are_drawn_jointly(name: str) -> None:
    one = trained(name)
    images = one.dataset.take(slice(0, 4)).native()
    known = np.zeros((4, 4), bool)
    known[:, 1:] = True
    done, found = one.model.complete(images, known=known, draws=2, details=True)
    assert found.method == "pinned"
    assert (done[:, known] == np.repeat(images, 2, 0)[:, known]).all()


@pytest.mark.parametrize("name", ["lantern", "neighboring-ar", "pixelcnn", "pixelcnn-any", "sigma-gpt"])
def test_what_takes_no_colours_says_so(name: str) -> None:
    record = catalogue()[name]
    with pytest.raises(DataError, match="read images with channels=1"):
        record(**record.tiny).build(toy("colours", 16))


def test_patches_of_pixels_need_pixels() -> None:
    record = catalogue()["fractalgen"]
    codes = Autoencoder(VQ(4, width=4), Convolutional(8, (1,), patch=1), perceptual=0.0)
    model = record(patches=(4, 2, 1), widths=(16,) * 4, depths=(1,) * 4)
    with pytest.raises(DataError, match="leave it on pixels"):
        model.fit(toy("grid4", 16), tokenizer=codes, steps=1, quiet=True)
