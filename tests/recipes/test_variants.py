"""Other data and options of the recipes than the ones the laws run on by default."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import ancestral
from ancestral.coding import unpack
from ancestral.decoding.composition import WholeProduct
from ancestral.decoding.decoders import Ancestral, Request
from ancestral.decoding.ensemble import OrderEnsemble
from ancestral.decoding.lexical import Containing
from ancestral.decoding.relaxed import BigLittle, Lantern
from ancestral.decoding.set_prompt import Marked
from ancestral.decoding.speculative import Speculative
from ancestral.errors import DataError
from ancestral.laws import Exam, chi_square, examine, log_probs
from ancestral.noise import Noise
from ancestral.recipes.registry import catalogue
from ancestral.recipes.toys import enumerate_values, toy
from ancestral.space import Condition

LAWS = ("causality", "incremental", "normalisation", "sampling", "coding", "completion", "saving", "batches", "resume")
VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "any-order-table": ("any-order", "table", {"data": "table"}),
    "any-order-tokens": ("any-order", "tokens", {"data": "sequences"}),
    "any-order-colours": ("any-order", "colours", {}),
    "any-order-logistic": ("any-order", "grid", {"head": "logistic"}),
    "nade-deep": ("nade", "table", {"agnostic": True, "hidden": 32, "depth": 2}),
    "nade-deep-grid": ("nade", "grid", {"agnostic": True, "hidden": 32, "data": "images"}),
    "nade-images": ("nade", "grid", {"data": "images", "depth": 2}),
    "nade-colours": ("nade", "colours", {"data": "images"}),
    "md4-tokens": ("md4", "tokens", {"data": "sequences", "alpha": "linear"}),
    "md4-colours": ("md4", "colours", {}),
    "ardm-images": ("ardm", "grid", {"data": "images", "passes": 2}),
    "sigma-gpt-table": ("sigma-gpt", "table", {"data": "table", "curriculum": 0.0}),
    "rar-colours": ("rar", "colours", {"anneal": (0.2, 0.8)}),
    "randar-colours": ("randar", "colours", {"passes": None}),
    "maskgit-colours": ("maskgit", "colours", {}),
    "aim-colours": ("aim", "colours", {"groups": 1}),
    "aim-first-mamba": ("aim", "grid", {"heads": 0}),
    "fractalgen-colours": ("fractalgen", "colours", {}),
    "fractalgen-two-levels": ("fractalgen", "grid", {"patches": (1,), "widths": (16, 16), "depths": (1, 1)}),
    "gpt-stream": ("gpt", "text", {"tokens": "bytes", "length": 2}),
    "wavenet-stream": ("wavenet", "text", {"data": "text", "length": 2}),
    "neighboring-ar-wide": ("neighboring-ar", "wide", {}),
}


@functools.cache
def exam(name: str) -> Exam:
    base, data, options = VARIANTS[name]
    record = catalogue()[base]
    return Exam(replace(record, toy=data, tiny={**record.tiny, **options}))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", VARIANTS)
def test_law(name: str, law: str) -> None:
    result = examine(exam(name), law)
    assert result.status in ("ok", "not applicable"), result.detail


@pytest.mark.parametrize("name", ["nade-deep-grid", "ardm-images", "sigma-gpt-table"])
def test_bounds(name: str) -> None:
    result = examine(exam(name), "bounds")
    assert result.status == "ok", result.detail


def test_ensemble_of_orders_is_a_distribution() -> None:
    one, ensemble = exam("nade-deep-grid"), OrderEnsemble(5)
    mixture = ensemble.log_prob(one.generator, one.everything)
    assert float(mixture.exp().sum()) == pytest.approx(1, abs=1e-5)
    members = torch.stack([log_probs(one.generator, one.everything, o) for o in ensemble.orders(one.generator)])
    assert bool((mixture >= members.mean(0) - 1e-9).all())
    assert float((mixture - members[0]).abs().max()) > 1e-3, "the orders agree, so that nothing is tested"
    drawn = ensemble(one.generator, Request(Noise.of(31, 6000)))
    assert chi_square(drawn, one.everything, mixture.exp()) > 1e-3
    with pytest.raises(ValueError, match="any order"):
        ensemble.orders(exam("nade-images").generator)


def test_ensemble_needs_a_network_for_all_orders() -> None:
    with pytest.raises(DataError, match="agnostic=True"):
        catalogue()["nade"](ensemble=3)
    model = catalogue()["nade"](**{**exam("nade-deep").recipe.tiny, "ensemble": 3}).build(toy("table"))
    assert len(model.sample(4)) == 4


UNGUIDED = (Speculative, Lantern, BigLittle, Containing, Marked, WholeProduct)
"""Decoders that take no guidance."""

SLOW_TO_LABELS = {"arpg": 120, "mar": 120}
"""Training steps of recipes whose tiny settings learn labels late."""


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_labels_and_guidance(name: str) -> None:
    """Where data have labels they matter, and guidance strengthens them."""
    one = Exam(catalogue()[name], steps=SLOW_TO_LABELS.get(name, 60))
    if not one.generator.space.classes:
        pytest.skip("the toy data have no labels")
    told = [np.asarray(one.model.log_prob(one.dataset, label=k)) for k in (0, 1)]
    own = np.where(one.dataset.labels == 0, told[0], told[1]).mean()
    assert own > np.where(one.dataset.labels == 0, told[1], told[0]).mean() + 0.05
    settings: dict[str, Any] = {"label": 1, "seed": 2, "as_dataset": True}
    if isinstance(
        one.model.decoder, Speculative | Lantern | BigLittle | Containing | Marked | WholeProduct
    ):  # takes no guidance
        settings["decoder"] = Ancestral()

    def score(guidance: float) -> float:
        drawn = one.model.sample(300, guidance=guidance, **settings)
        difference = one.model.log_prob(drawn, label=1) - one.model.log_prob(drawn, label=0)
        return float(np.mean(np.asarray(difference)))

    def token_score(guidance: float) -> float:
        """As ``score``, on the drawn tokens themselves: a barely trained tokenizer loses them on the way to data."""
        label = torch.ones(300, dtype=torch.long)
        request = Request(Noise.of(2, 300), Condition(label=label), guidance=guidance)
        values = one.model.decoder(one.generator, request)
        yes, no = (log_probs(one.generator, values, condition=Condition(label=k * label)) for k in (1, 0))
        return float((yes - no).mean())

    if one.model.tokenizer.learned and one.generator.head.exact:
        score = token_score
    assert score(3.0) > score(0.0)


TEXT = "the cat sat on the mat. the dog sat on the log. " * 30


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gpt", {"tokens": "bytes", "length": 16}),
        ("gpt", {"tokens": "bpe", "length": 8, "vocab": 280}),
        ("wavenet", {"data": "text", "length": 16}),
    ],
)
def test_streams(name: str, options: dict[str, Any]) -> None:
    record = catalogue()[name]
    model = record(**{**record.tiny, **options}).fit([TEXT], steps=60, lr=1e-2, quiet=True, ema=None, validation=0.1)
    text = "the dog sat on the mat. the cat sat"
    score = model.log_prob([text])
    assert score.kind == "exact" and score.bits_per_dim() < 5.0
    assert float(np.asarray(model.log_prob([text + " on"]))[0]) < float(np.asarray(score)[0])
    blob = model.compress([text])
    assert model.decompress(blob) == [text]
    ideal = -float(np.asarray(score)[0]) / math.log(2)
    assert abs(unpack(blob).code_bits - ideal) < 0.01 * ideal + 64
    several = model.sample(3, length=24, seed=1)
    assert several[1:] == model.sample(2, length=24, seed=1, first=1)
    longer = model.complete(["the dog "], length=10, seed=0)
    assert longer[0].startswith("the dog ") and len(longer[0]) > len("the dog ")


def test_documents_that_end() -> None:
    record = catalogue()["gpt"]
    options = {**record.tiny, "tokens": "bytes", "streaming": False, "length": 8}
    texts = ["cat", "dog", "catdog", "dogcat"] * 40
    model = record(**options).fit(texts, steps=150, lr=1e-2, quiet=True, ema=None, validation=0)
    score = np.exp(np.asarray(model.log_prob(["cat", "dog", "catdog", "dogcat"])))
    assert score.sum() > 0.6
    assert sum(text in set(texts) for text in model.sample(50, seed=0)) > 20


def test_patches_come_back() -> None:
    one = exam("fractalgen-colours")
    pixels = np.random.default_rng(0).integers(0, 2, (5, 2, 2, 2)).astype(np.uint8)
    assert np.array_equal(one.model.decompress(one.model.compress(pixels)), pixels)
    record = catalogue()["fractalgen"]
    wide = record(patches=(2, 1), widths=(16, 16, 16), depths=(1, 1, 1)).build(
        ancestral.data.Images(np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1), levels=64)
    )
    values = wide.tokenizer.encode(ancestral.data.Images(np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1), levels=64))
    assert values.shape == (1, 16, 4)
    assert values[0, 5].tolist() == [18, 19, 26, 27]
    three = record(patches=(4, 2, 1), widths=(16,) * 4, depths=(1,) * 4)
    three.build(ancestral.data.Images(np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1), levels=64))
    assert three.tokenizer.encode(wide.tokenizer.decode(values))[0, 1].tolist()[:8] == [4, 5, 12, 13, 6, 7, 14, 15]
    with pytest.raises(DataError, match="divide"):
        record(patches=(3, 1)).build(toy("grid4"))


def test_three_levels_are_normalised() -> None:
    record = catalogue()["fractalgen"]
    tiny = {"patches": (4, 2, 1), "widths": (16,) * 4, "depths": (1,) * 4}
    one = Exam(replace(record, toy="grid4", tiny=tiny), steps=3)
    cells = enumerate_values(one.generator.space)
    some = cells[torch.randperm(len(cells), generator=torch.Generator().manual_seed(0))[:64]]
    # The last pixel decides between pairs of items: each pair's share sums to that of its other pixels.
    other = some.clone()
    other[:, -1, -1] = 1 - other[:, -1, -1]
    both = torch.stack([log_probs(one.generator, some), log_probs(one.generator, other)]).logsumexp(0)
    first = one.generator.head.generator
    assert first.space.n == 4 and first.head.generator.space.n == 4 and first.head.generator.head.generator.space.n == 1
    assert bool((both > log_probs(one.generator, some)).all())
    assert examine(one, "coding").status == "ok"


def test_order_scale_of_the_curriculum() -> None:
    model = exam("sigma-gpt-table").model
    assert model.generator.any_order
    early = catalogue()["sigma-gpt"](**{**exam("sigma-gpt-table").recipe.tiny, "curriculum": 0.5}).build(toy("table"))
    policy = early.generator.order
    noise = torch.rand(64, early.space.n + 1, generator=torch.Generator().manual_seed(0))
    raster = torch.arange(early.space.n)
    shares = [float((policy.draw(noise, p).expand(64).rank == raster).all(1).float().mean()) for p in (0.0, 0.25, 1.0)]
    assert shares[0] == 1.0 and shares[0] > shares[1] > shares[2] and shares[2] < 0.5


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("rar", {"anneal": (0.8, 0.2)}, "two shares"),
        ("md4", {"alpha": "sine"}, "choose cosine, linear or learned"),
        ("wavenet", {"data": "smells"}, "unknown"),
        ("fractalgen", {"patches": (4, 3)}, "must end with 1"),
        ("fractalgen", {"patches": (4, 1), "widths": (8, 8)}, "need 3 widths"),
        ("any-order", {"head": "gaussian"}, "unknown"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        catalogue()[name](**options)


def test_the_class_of_aim_is_its_first_token() -> None:
    model = catalogue()["aim"](**catalogue()["aim"].tiny).build(toy("grid", 16))
    network, order = model.generator.network, model.generator.order.scoring()
    values = torch.randint(0, 3, (1, 4))
    first, second = (
        network.inputs(values, order, Condition(label=torch.tensor([label])), 0, 4)[0, :, : network.width]
        for label in (0, 1)
    )
    assert not torch.equal(first[0], second[0]) and torch.equal(first[1:], second[1:])
