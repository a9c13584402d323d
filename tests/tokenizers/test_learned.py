"""Learned tokenizers: they learn, come back from disk, and serve any prior."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ancestral
from ancestral.data import Images
from ancestral.errors import DataError, UnsupportedError
from ancestral.laws import Exam, examine
from ancestral.noise import Noise
from ancestral.recipes.registry import catalogue
from ancestral.recipes.toys import toy
from ancestral.tokenizers import Tokenizer
from ancestral.tokenizers.learned import (
    FSQ,
    KL,
    LFQ,
    VQ,
    Autoencoder,
    Bins,
    Convolutional,
    MultiScaleVQ,
    Product,
    Quantiser,
    Query,
    ResidualVQ,
)
from ancestral.tokenizers.learned.quantisers import Codebook, kmeans, nearest

QUANTISERS = {
    "vq": lambda: VQ(6, 4),
    "vq-distance": lambda: VQ(6, 4, normalise=False),
    "fsq": lambda: FSQ((3, 4)),
    "lfq": lambda: LFQ(3),
    "residual": lambda: ResidualVQ(4, 2, 4),
    "scales": lambda: MultiScaleVQ(6, 4, (1, 2)),
    "scales-direction": lambda: MultiScaleVQ(6, 4, (1, 2), normalise=True, convolutions=2),
    "product": lambda: Product([VQ(4, 2), VQ(4, 2)]),
    "folded": lambda: Product([MultiScaleVQ(4, 2, (1, 2)), MultiScaleVQ(4, 2, (1, 2))]),
    "kl": lambda: KL(2),
    "bins": lambda: Bins(2, 4),
}


def squares(n: int = 256, seed: int = 0) -> Images:
    """Images of 8 x 8: the class is the quarter that is bright, its level varies."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, n)
    pixels = random.integers(0, 3, (n, 8, 8, 1))
    for i, label in enumerate(labels):
        v, u = 4 * (label // 2), 4 * (label % 2)
        pixels[i, v : v + 4, u : u + 4] += random.integers(6, 12)
    return Images(pixels.astype(np.uint8), labels=labels, levels=16)


def small(quantiser: Quantiser, **options: Any) -> Autoencoder:
    return Autoencoder(quantiser, Convolutional(8, (1, 1)), **{"perceptual": 0.0, **options})


@functools.cache
def trained(name: str) -> Autoencoder:
    return small(QUANTISERS[name]()).fit(squares(), steps=60, quiet=True, lr=5e-3)


@pytest.mark.parametrize("name", QUANTISERS)
def test_reconstruction_improves_on_the_mean_image(name: str) -> None:
    test = squares(64, seed=1)
    mean = squares().pixels.mean(0)
    best_constant = float(np.square((test.pixels - mean) / 15).mean())
    report = trained(name).report(test)
    assert report["mse"] < 0.67 * best_constant, report
    assert ("used" in report) == (name != "kl")


@pytest.mark.parametrize("name", QUANTISERS)
def test_codes_decode_to_the_latents_that_training_saw(name: str) -> None:
    quantiser = trained(name).quantiser
    torch.manual_seed(0)
    latents = torch.randn(3, quantiser.inputs, 2, 2)
    quantiser.train()
    frozen = {k: v.clone() for k, v in quantiser.state_dict().items()}
    quantiser.eval()
    found = quantiser(latents, Noise.of(0, 3))
    assert torch.equal(found.codes, quantiser.encode(latents))
    back = quantiser.decode(found.codes)
    if name == "bins":  # quantised after training only
        assert float((back - found.latents).abs().max()) < float(quantiser.spread.max()) * 3
    else:
        assert torch.allclose(back, found.latents, atol=1e-5)
    assert all(torch.equal(v, frozen[k]) for k, v in quantiser.state_dict().items()), "evaluation changed the codebook"
    space = quantiser.space((2, 2))
    assert found.codes.shape == (3, space.n, *space.event)
    if space.discrete:
        assert int(found.codes.max()) < space.largest and int(found.codes.min()) >= 0


@pytest.mark.parametrize("name", QUANTISERS)
def test_gradients_reach_the_encoder(name: str) -> None:
    quantiser = QUANTISERS[name]()
    quantiser.build(2, 2)
    latents = torch.randn(4, quantiser.inputs, 2, 2, requires_grad=True)
    quantiser.eval()
    found = quantiser(latents, Noise.of(0, 4))
    (gradient,) = torch.autograd.grad((found.latents * torch.randn_like(found.latents)).sum(), latents)
    part = gradient.chunk(2, 1)[0] if quantiser.inputs != quantiser.width else gradient
    assert bool((part != 0).any(0).all())


@pytest.mark.parametrize("name", QUANTISERS)
def test_saved_alone(name: str, tmp_path: Path) -> None:
    tokenizer, images = trained(name), squares(16, seed=2)
    tokenizer.save(tmp_path / "tokenizer")
    assert {p.name for p in (tmp_path / "tokenizer").iterdir()} == {"tokenizer.json", "tokenizer.safetensors"}
    loaded = Tokenizer.load(tmp_path / "tokenizer")
    values = tokenizer.encode(images)
    assert torch.equal(loaded.encode(images), values)
    assert np.array_equal(loaded.decode(values).pixels, tokenizer.decode(values).pixels)
    assert loaded.space == tokenizer.space and loaded.classes == ("0", "1", "2", "3")


def test_reused_under_another_prior(tmp_path: Path) -> None:
    trained("vq").save(tmp_path / "tokenizer")
    before = {k: v.clone() for k, v in trained("vq").tensors().items()}
    tiny = catalogue()["maskgit"].tiny
    model = ancestral.fit(squares(), recipe="maskgit", tokenizer=tmp_path / "tokenizer", steps=3, quiet=True, **tiny)
    assert model.space == trained("vq").space
    assert all(torch.equal(v, before[k]) for k, v in model.tokenizer.tensors().items())
    model.save(tmp_path / "model")
    again = ancestral.load(tmp_path / "model")
    assert np.array_equal(again.sample(4, label=2), model.sample(4, label=2))
    third = ancestral.fit(
        squares().pixels, recipe="llamagen", tokenizer=tmp_path / "model", steps=2, quiet=True, width=16, depth=1
    )
    assert third.space == trained("vq").space.replace(classes=0), "the labels are those of the new data"


def test_a_model_trains_its_tokenizer_and_says_what_its_scores_mean() -> None:
    options = {**catalogue()["llamagen"].tiny, "multipliers": (1, 1), "perceptual": 0.1}
    model = ancestral.fit(squares(), recipe="llamagen", steps=20, quiet=True, **options)
    assert model.tokenizer.history.steps == 20 and model.history.steps == 20
    scores = model.log_prob(squares(8, seed=3))
    assert (scores.kind, scores.of) == ("exact", "codes") and scores.scalars.tolist() == [4] * 8
    assert model.verbs() == ("sample", "log_prob", "complete")
    with pytest.raises(UnsupportedError, match="lossy"):
        model.compress(squares(4))
    short = ancestral.fit(
        squares(), recipe="llamagen", steps=20, quiet=True, tokenizer_training={"steps": 3}, **options
    )
    assert short.tokenizer.history.steps == 3 and short.history.steps == 20


def test_minutes_are_shared() -> None:
    options = catalogue()["llamagen"].tiny
    model = ancestral.fit(squares(), recipe="llamagen", minutes=0.05, quiet=True, **options)
    assert 0.9 < model.tokenizer.history.seconds < 2.4
    assert 1.5 < model.history.seconds < 3.6
    with pytest.raises(DataError, match="leave none for the model"):
        ancestral.fit(squares(), recipe="llamagen", minutes=1, tokenizer_training={"minutes": 1}, **options)
    with pytest.raises(DataError, match="not learned"):
        ancestral.fit(squares(), recipe="aim", minutes=1, tokenizer_training={"minutes": 1})


def test_known_pixels_stay() -> None:
    options = {**catalogue()["llamagen"].tiny, "multipliers": (1, 1)}
    model = ancestral.fit(squares(), recipe="maskgit", tokenizer=trained("vq"), steps=5, quiet=True, width=16, depth=1)
    images = squares(3, seed=4)
    known = np.zeros((8, 8), bool)
    known[:5] = True  # the upper codes, and a line of pixels below that belongs to no known code
    done = model.complete(images, known=known, draws=2, as_dataset=True)
    assert np.array_equal(done.pixels[:, :5], np.repeat(images.pixels, 2, 0)[:, :5])
    sites = model.tokenizer.known_sites(torch.from_numpy(known)[None])
    assert sites.tolist() == [[True, True, False, False]]
    by_code = model.complete(images, known=np.array([[True, True], [False, False]]), as_dataset=True)
    assert by_code.pixels.shape == images.pixels.shape
    raster = ancestral.fit(squares(), recipe="llamagen", tokenizer=trained("vq"), steps=2, quiet=True, **options)
    _, details = raster.complete(images, known=known, details=True)
    assert details.method == "prefix"


def test_tokens_without_a_place() -> None:
    mean, test = squares().pixels.mean(0), squares(64, seed=1)
    latent = Autoencoder(KL(4), Query(tokens=3, patch=4, width=32, depth=2), perceptual=0.0)
    latent.fit(squares(), steps=120, quiet=True, lr=4e-3)
    assert latent.report(test)["mse"] < 0.67 * float(np.square((test.pixels - mean) / 15).mean())
    query = Query(tokens=3, patch=4, width=16, depth=1)
    tokenizer = Autoencoder(VQ(8, 4), query, perceptual=0.0).fit(squares(), steps=5, quiet=True)
    assert tokenizer.space.shape == (3,) and tokenizer.encode(squares(5)).shape == (5, 3)
    again = Tokenizer.from_state(tokenizer.state())
    again.load_tensors(tokenizer.tensors())
    assert torch.equal(again.encode(test), tokenizer.encode(test))
    most = torch.ones(1, 8, 8, dtype=torch.bool)
    assert tokenizer.known_sites(most).all()
    most[0, 0, 0] = False
    assert not tokenizer.known_sites(most).any()
    options = {**catalogue()["llamagen"].tiny, "width": 16}
    model = ancestral.fit(squares(), recipe="llamagen", tokenizer=tokenizer, steps=3, quiet=True, **options)
    assert model.sample(2, label=1).shape == (2, 8, 8)
    with pytest.raises(DataError, match="do not divide into patches"):
        Autoencoder(VQ(4, 2), Query(patch=3)).fit(squares(), steps=1)


def test_images_that_do_not_suit() -> None:
    with pytest.raises(DataError, match="do not divide into cells of 4 x 4"):
        small(VQ(4, 2)).fit(toy("grid"), steps=1)
    with pytest.raises(DataError, match="the last of scales"):
        small(MultiScaleVQ(4, 2, (1, 3))).fit(squares(), steps=1)
    with pytest.raises(DataError, match="4x4x1 where the tokenizer takes 8x8x1"):
        trained("vq").encode(toy("grid4"))
    with pytest.raises(DataError, match="holds no saved tokenizer"):
        Tokenizer.load("nowhere")
    with pytest.raises(ValueError, match="must grow"):
        MultiScaleVQ(scales=(2, 1))


def test_alone_it_takes_arrays_and_only_its_own_codes() -> None:
    tokenizer, images = trained("vq"), squares(4)
    codes = tokenizer.encode(images)
    assert torch.equal(tokenizer.encode(images.native()), codes)
    with pytest.raises(DataError, match="there is no code 9999"):
        tokenizer.decode(codes.clone().fill_(9999))
    with pytest.raises(DataError, match=r"give \(n, "):
        tokenizer.decode(codes[:, 1:])


def test_adversary_and_features_take_part() -> None:
    plain = small(VQ(4, 2)).fit(squares(), steps=12, quiet=True)
    for options in ({"adversarial": 0.5}, {"perceptual": 1.0}, {"reconstruction": "l1"}):
        other = small(VQ(4, 2), **options).fit(squares(), steps=12, quiet=True)
        same = [torch.equal(a, b) for a, b in zip(plain.tensors().values(), other.tensors().values(), strict=True)]
        assert not all(same), options


def twins() -> Product:
    return Product([VQ(8, 3), VQ(8, 3)])


def test_a_semantic_loss_is_learned_by_the_last_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its latents tell images of a batch apart as the frozen features do, better than at the start, and by themselves:
    the map of the features alone, with the branch's latents held fixed, learns less."""
    from ancestral.tokenizers.learned import autoencoder

    contrast, seen = autoencoder.contrast, []

    def watched(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        assert one.shape[1] == 3  # the last branch's channels, of six
        found = contrast(one if moves else one.detach(), other)
        seen.append(float(found.detach()))
        return found

    monkeypatch.setattr(autoencoder, "contrast", watched)
    ends = {}
    for moves in (True, False):
        seen.clear()
        small(twins(), semantic=1.0).fit(squares(), steps=150, quiet=True, lr=5e-3)
        ends[moves] = (sum(seen[:10]) / 10, sum(seen[-30:]) / 30)
    assert ends[True][1] < 0.9 * ends[True][0]
    assert ends[True][1] < ends[False][1]


def test_a_semantic_weight_is_saved_and_older_files_have_none(tmp_path: Path) -> None:
    made = small(twins(), semantic=0.5).fit(squares(), steps=2, quiet=True)
    assert made.state()["semantic"] == 0.5
    made.save(tmp_path / "new")
    assert Tokenizer.load(tmp_path / "new").semantic == 0.5
    state = made.state()
    del state["semantic"]
    older = small(twins())
    older.load_state(state)
    assert older.semantic == 0.0


def test_maps_are_left_out_alike_in_all_branches_and_in_training_only() -> None:
    torch.manual_seed(0)
    pair = Product([MultiScaleVQ(8, 2, (1, 2, 4), drop=0.5), MultiScaleVQ(8, 2, (1, 2, 4), drop=0.5)])
    pair.build(4, 4)
    noise = Noise.of(0, 400)
    first, second = (branch._used(noise) for branch in pair.branches)
    assert torch.equal(first, second) and bool(first[:, 0].all())
    depth = first.sum(1)
    # Half of the items keep all three maps, and so does a third of the others.
    assert [float((depth == k).float().mean()) for k in (1, 2, 3)] == pytest.approx([1 / 6, 1 / 6, 2 / 3], abs=0.06)
    latents = torch.randn(400, 4, 4, 4)
    seen = pair.train()(latents, noise).latents.detach()
    pair.eval()
    branch = pair.branches[0]
    assert branch._used(noise) is None
    assert seen.shape == latents.shape and seen[depth == 1].std() < seen[depth == 3].std()


def test_the_adversary_and_the_autoencoder_leave_each_other_alone() -> None:
    from ancestral.tokenizers.learned.losses import Discriminator

    torch.manual_seed(0)
    judge, made = Discriminator(1, 4), torch.randn(2, 1, 8, 8, requires_grad=True)
    fooled, judged = judge.game(torch.randn(2, 1, 8, 8), made)
    weights = list(judge.parameters())
    assert all(g is None for g in torch.autograd.grad(fooled, weights, allow_unused=True, retain_graph=True))
    assert torch.autograd.grad(fooled, made)[0].abs().max() > 0
    assert torch.autograd.grad(judged, made, allow_unused=True, retain_graph=True)[0] is None
    assert torch.autograd.grad(judged, weights)[0].abs().max() > 0


def test_codebook_follows_means_and_restarts_dead_codes() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(400, 2, generator=generator) * 0.1 + torch.tensor([[3.0, 0.0], [-3.0, 0.0]]).repeat(200, 1)
    book = Codebook(2, 2, normalise=False, decay=0.5, restart=0.05)
    book.vectors.copy_(torch.tensor([[2.0, 0.0], [100.0, 0.0]]))
    book.total.copy_(book.vectors)
    for _ in range(30):
        book.follow(points, book.find(points), generator)
    means = sorted(book.vectors[:, 0].tolist())
    assert means == pytest.approx([-3, 3], abs=0.05)
    assert book.count.tolist() == pytest.approx([1, 1], abs=0.05)


def test_kmeans_survives_fewer_points_than_centres() -> None:
    centres = kmeans(torch.tensor([[0.0], [1.0]]), 5, seed=0)
    assert centres.shape == (5, 1) and bool(torch.isfinite(centres).all())
    assert set(nearest(torch.tensor([[0.0], [1.0]]), centres).tolist()) <= set(range(5))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(2, 6), min_size=1, max_size=4), st.integers(0, 2**16))
def test_fsq_codes_are_a_bijection(levels: list[int], seed: int) -> None:
    quantiser = FSQ(tuple(levels))
    quantiser.build(1, quantiser.codes)
    every = torch.arange(quantiser.codes)[None]
    grid = quantiser.decode(every)
    assert len(torch.unique(grid[0].flatten(1).T, dim=0)) == quantiser.codes
    # A latent far enough along every channel's own level comes back as that level.
    latents = torch.atanh(grid.clamp(-1, 1) * (1 - 1 / torch.tensor(levels)).reshape(1, -1, 1, 1))
    assert torch.equal(quantiser.encode(latents), every)
    wild = torch.randn(2, len(levels), 1, quantiser.codes, generator=torch.Generator().manual_seed(seed)) * 50
    assert int(quantiser.encode(wild).max()) < quantiser.codes


def test_kl_samples_in_training_only() -> None:
    quantiser = KL(2).build(2, 2)
    latents = torch.randn(2, 4, 2, 2)
    fixed = quantiser.eval()(latents, Noise.of(0, 2)).latents
    assert torch.equal(fixed, latents[:, :2])
    drawn = quantiser.train()(latents, Noise.of(0, 2)).latents
    assert not torch.allclose(drawn, fixed)
    assert torch.equal(drawn, quantiser(latents, Noise.of(0, 2)).latents), "noise belongs to the item"
    standard = torch.zeros(3, 4, 2, 2)
    assert quantiser.divergence(standard).tolist() == [0, 0, 0]


@pytest.mark.parametrize("law", ["coding", "sampling", "saving", "resume", "batches"])
def test_laws_with_features(law: str) -> None:
    """The tokenizer's own training is part of what has to be saved and resumed."""
    result = examine(Exam(catalogue()["llamagen"], steps=5), law)
    assert result.status == "ok", result.detail


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from ancestral.cli import main

    squares().save(tmp_path / "squares.npz")
    trained("vq").save(tmp_path / "tokenizer")
    out = str(tmp_path / "model")
    options = ["--set", "width=16", "--set", "depth=1", "--steps", "2", "--quiet", "--json"]
    data = str(tmp_path / "squares.npz")
    assert (
        main(["fit", data, "-r", "llamagen", "--tokenizer", str(tmp_path / "tokenizer"), "--out", out, *options]) == 0
    )
    capsys.readouterr()
    assert main(["score", out, data, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["of"] == "codes" and told["dimensions"] == 4 * 256
    assert main(["compress", out, data, "--out", str(tmp_path / "data.anc")]) != 0
    assert "lossy" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["llamagen", "par", "arpg"])
def test_several_codes_per_place_are_drawn_in_turn(name: str) -> None:
    options = {"width": 16, "depth": 2, "heads": 2, "steps": 3, "quiet": True, "validation": 0}
    model = ancestral.fit(squares(32), recipe=name, tokenizer=trained("residual"), **options)
    assert model.space.event == (2,) and model.sample(2, label=1, guidance=1.0).shape == (2, 8, 8)
    assert np.isfinite(model.log_prob(squares(4))).all()


@pytest.mark.parametrize(
    ("name", "tokens", "words"),
    [
        ("var", "vq", "pyramid of scales"),
        ("mar", "vq", "real values"),
        ("maskgit", "kl", "needs categories"),
        ("par", "scales", "choose a tokenizer whose codes stand in a grid"),
        ("next-patch-prediction", "scales", "choose a tokenizer whose codes stand in a grid"),
        ("conv-nade", "scales", "does not suit the given tokenizer"),
        ("tokenbridge", "vq", "keep the recipe's own tokenizer"),
    ],
)
def test_a_prior_that_does_not_suit_the_codes_says_why(name: str, tokens: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        ancestral.fit(squares(16), recipe=name, tokenizer=trained(tokens), steps=1, quiet=True, validation=0)
