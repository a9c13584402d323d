"""Feature networks: the one of the catalogue, saving, refusals, and figures that carry what they depend on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ancestral import fit
from ancestral.data import Images
from ancestral.errors import DataError, UnsupportedError
from ancestral.evaluation.features import Classifier, FeatureNetwork, class_accuracy, feature_network
from ancestral.evaluation.images import draw, figures, measure, reconstruction
from ancestral.evaluation.passes import counting
from ancestral.recipes.registry import feature_networks, find


def bars(n: int, seed: int = 0, labels: bool = True) -> Images:
    """Noisy bars, lying or upright."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, n)
    pixels = rng.integers(0, 60, (n, 8, 8, 1))
    for image, upright, place in zip(pixels, kind, rng.integers(0, 8, n)):
        image[(slice(None), place) if upright else (place, slice(None))] += 180
    return Images(pixels.astype(np.uint8), kind if labels else None, ("lying", "upright") if labels else ())


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    return feature_network("label-classifier", bars(400), width=8, depth=3, lr=1e-2, steps=400, source="bars")


@pytest.mark.parametrize("name", sorted(feature_networks()))
def test_every_feature_network_of_the_catalogue_is_made_at_its_tiny_size(name: str) -> None:
    record = feature_networks()[name]
    if name == "inception-v3":
        with pytest.raises(DataError, match="not shipped"):
            record.build(**record.config(**record.tiny))
    else:
        assert isinstance(record.build(**record.config(**record.tiny)), FeatureNetwork)
    with pytest.raises(DataError, match="feature network, not a model"):
        find(name)


def test_it_learns_the_labels_and_says_so(network: FeatureNetwork) -> None:
    fresh = bars(200, seed=1)
    assert class_accuracy(network, fresh) > 0.95
    assert network.title.startswith("label-classifier ")
    assert network.title.endswith("(labels of 400 images of bars)")
    found, probabilities = network.measure(fresh)
    assert found.shape == (200, 32) and found.dtype == np.float64
    assert probabilities is not None
    np.testing.assert_allclose(probabilities.sum(1), 1)
    again, _ = network.measure(fresh, batch_size=7)
    np.testing.assert_allclose(found, again, atol=1e-5)


def test_without_labels_it_learns_rotations() -> None:
    made = Classifier(4, 2).fit(bars(64, labels=False), steps=5)
    assert made.source == "rotations of 64 images" and made.classes == ()
    assert made.measure(bars(10))[1] is None
    with pytest.raises(UnsupportedError, match="knows the classes"):
        class_accuracy(made, bars(10))


def test_saving_and_loading(network: FeatureNetwork, tmp_path: Path) -> None:
    network.save(tmp_path / "kept")
    again = feature_network(tmp_path / "kept")
    assert again.title == network.title and again.classes == network.classes
    np.testing.assert_array_equal(again.measure(bars(9))[0], network.measure(bars(9))[0])
    (tmp_path / "kept" / "features.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="is damaged"):
        FeatureNetwork.load(tmp_path / "kept")


def test_refusals(network: FeatureNetwork, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no saved feature network"):
        feature_network(tmp_path)
    with pytest.raises(DataError, match=r"there is no feature network 'resnet'.*label-classifier"):
        feature_network("resnet")
    with pytest.raises(DataError, match="give it images to learn from"):
        feature_network("label-classifier")
    with pytest.raises(UnsupportedError, match="has no weights yet"):
        Classifier().measure(bars(3))
    with pytest.raises(DataError, match="6x8x1 where the feature network label-classifier takes 8x8x1"):
        network.measure(Images(np.zeros((2, 6, 8, 1), np.uint8)))


def test_distances_grow_with_noise_and_with_missing_classes(network: FeatureNetwork) -> None:
    real, other = bars(300, seed=2), bars(300, seed=3)
    rng = np.random.default_rng(0)
    found = []
    for strength in (0, 40, 120):
        noisy = (other.pixels.astype(int) + rng.integers(-strength, strength + 1, other.pixels.shape)).clip(0, 255)
        made = Images(noisy.astype(np.uint8))
        found.append(figures(network, real, made, reference="bars", other=bars(300, seed=4)))
    distance = [f["frechet"].value for f in found]
    assert distance[0] < distance[1] < distance[2]
    assert found[0]["coverage"].value > 0.9 > found[2]["coverage"].value
    assert distance[0] < 3 * (found[0]["frechet"].floor or 0) + 0.01
    half = figures(network, real, other.take(other.labels == 0), reference="bars")
    assert half["frechet"].value > 5 * distance[0] and half["recall"].value < 0.8 < found[0]["recall"].value
    assert found[0]["inception_score"].value > 1.8 > 1.2 > half["inception_score"].value


def test_every_figure_says_what_it_is_of(network: FeatureNetwork) -> None:
    found = figures(network, bars(60), bars(50, seed=1), reference="bars, the test part")
    for figure in found.values():
        assert figure.network == network.title and figure.reference == "bars, the test part"
        assert (figure.real, figure.made) == (60, 50) and figure.note
    assert "50 images against 60 of bars, the test part, by label-classifier" in str(found["frechet"])


def test_a_model_is_judged_with_its_work(network: FeatureNetwork) -> None:
    model = fit(bars(200), recipe="conv-nade", width=8, depth=1, steps=3, quiet=True)
    out = measure(model, bars(60, seed=5), network, reference="bars", samples=40, scored=8, batch=20, guidance=0.5)
    assert out.drawn.passes == 64  # one per pixel; with and without the class at once
    assert out.drawn.batch == 20 and out.drawn.seconds > 0 and out.drawn.images.labels is not None
    assert "accuracy" in out.figures and "reconstruction" not in out.figures
    assert out.bits is not None and 0 < out.bits < 64 * 16
    assert out.summary()["figures"]["frechet"]["made"] == 40


def test_reconstructions_of_a_learned_tokenizer_are_measured(network: FeatureNetwork) -> None:
    from ancestral.recipes.registry import catalogue

    options = dict(catalogue()["llamagen"].tiny) | {"patch": 2, "steps": 2, "quiet": True}
    model = fit(bars(100), recipe="llamagen", **options)
    found = reconstruction(network, model, bars(50), reference="bars")
    assert found.value > 0 and found.real == found.made == 50
    judged = measure(model, bars(50), network, reference="bars", samples=20, scored=8)
    assert judged.tokenizer is not None and 0 < judged.tokenizer["used"] <= 1
    assert judged.bits_of == "codes" and judged.figures["reconstruction"].made == 20
    lossless = fit(bars(50), recipe="conv-nade", width=8, depth=1, steps=1, quiet=True)
    assert reconstruction(network, lossless, bars(50), reference="bars").value == pytest.approx(0, abs=1e-9)


def test_passes_are_counted_and_the_network_is_left_as_it_was() -> None:
    model = fit(bars(50), recipe="conv-nade", width=8, depth=1, steps=1, quiet=True)
    plain = model.sample(2, seed=3)
    with counting(model.generator.network) as passes:
        np.testing.assert_array_equal(model.sample(2, seed=3), plain)
    assert passes.network == 64
    assert type(model.generator.network).__module__ == "ancestral.networks.masked_convolution"
    model.sample(1)
    assert passes.network == 64
    torch.testing.assert_close(torch.tensor(draw(model, 3, seed=3).images.pixels[:2, ..., 0]), torch.tensor(plain))


def test_passes_inside_the_compiled_kernels_are_counted() -> None:
    model = fit(bars(50), recipe="aim", width=16, depth=1, heads=2, steps=1, quiet=True)
    raster = fit(bars(50), recipe="rar", width=16, depth=1, heads=2, steps=1, quiet=True)
    for drawing in (model, raster):
        with counting(drawing.generator.network) as passes:
            drawing.sample(2, seed=3)
        assert passes.network == 64


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_passes_count_each_time_that_a_head_asks_its_network_again(guidance: float) -> None:
    from ancestral.recipes.registry import catalogue

    options = dict(catalogue()["xar"].tiny) | {"patch": 2, "passes": 3, "steps": 1, "quiet": True}
    model = fit(bars(50), recipe="xar", **options)
    sets = model.space.n // 4  # cells of 2 x 2 latents
    with counting(model.generator.network) as passes:
        model.sample(2, label=[0, 1], guidance=guidance, batch_size=2)
    # One to see the sets before, and two of Heun's method in each of three steps.
    assert passes.network == pytest.approx(sets * (1 + 2 * 3))


def test_drafts_of_speculative_decoding_are_counted_apart() -> None:
    model = fit(bars(50), recipe="lantern", width=16, depth=2, heads=2, draft=1, steps=1, quiet=True)
    plain = model.sample(1, seed=3)
    with counting(model.generator.network) as passes:
        np.testing.assert_array_equal(model.sample(1, seed=3), plain)
    assert 64 / 5 <= passes.network <= 64 and passes.draft > 0
