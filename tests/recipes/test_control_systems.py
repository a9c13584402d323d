"""gelato-control, set-based-prompting and compositional-generation as recipes."""

from __future__ import annotations

import itertools

import pytest
import torch

from ancestral.decoding.composition import WholeProduct, members, product_log_prob
from ancestral.decoding.decoders import Ancestral, Request
from ancestral.decoding.lexical import Containing
from ancestral.errors import DataError, UnsupportedError
from ancestral.heads import LogLinear
from ancestral.laws import chi_square
from ancestral.noise import Noise
from ancestral.recipes.registry import find
from ancestral.recipes.toys import enumerate_values, toy
from ancestral.space import Condition

SMALL = dict(width=16, depth=1, heads=2, length=16)
TEXT = ["the cat sat on the mat and the dog saw the cat on the mat"]


@pytest.mark.parametrize("tokens", ["bytes", "bpe"])
def test_texts_contain_the_words(tokens: str) -> None:
    model = find("gelato-control")(
        **SMALL, tokens=tokens, vocab=270, words=("dog", ("cat", "mat")), states=4, samples=64, rounds=3
    ).build(TEXT)
    texts = model.sample(12, seed=3)
    assert all("dog" in t and ("cat" in t or "mat" in t) for t in texts)
    assert len(set(texts)) == 12
    free = model.sample(40, seed=3, decoder=Ancestral())
    assert not any("dog" in t for t in free), "free texts contain the word anyway, so that nothing is tested"
    begun = model.complete(["the "], length=12)[0]
    assert begun.startswith("the ") and "dog" in begun
    with pytest.raises(DataError, match="do not fit"):
        model.complete(["the "], length=2)


def test_the_look_ahead_follows_the_weights() -> None:
    model = find("gelato-control")(**SMALL, words=("a",), states=3, samples=32, rounds=2).build(TEXT)
    decoder = model.decoder
    assert isinstance(decoder, Containing)
    first = decoder.distilled(model.generator)
    assert decoder.distilled(model.generator) is first
    with torch.no_grad():
        next(model.generator.parameters()).add_(0.1)
    assert decoder.distilled(model.generator) is not first


@pytest.mark.parametrize("streaming", [True, False])
def test_what_follows_does_not_depend_on_the_order_of_marked_parts(streaming: bool) -> None:
    model = find("set-based-prompting")(**SMALL | dict(length=40), streaming=streaming).build(TEXT)

    def drawn(parts: list[str]) -> str:
        prompt = "of\x02" + "\x1e".join(parts) + "\x03take"
        if streaming:
            text = model.complete([prompt], length=10, seed=5, temperature=0.7)[0]
        else:
            text = model.sample(1, given=prompt, seed=5, temperature=0.7)[0]
        assert text.startswith(prompt)
        return str(text[len(prompt) :])

    assert len({drawn(list(parts)) for parts in itertools.permutations(["tea", "milk", "wine"])}) == 1
    assert drawn(["tea", "milk", "wine"]) != drawn(["tea", "milk", "beer"])


def test_marks_that_do_not_go_together_are_refused() -> None:
    model = find("set-based-prompting")(**SMALL).build(TEXT)
    for prompt in ("a\x02b", "a\x03b\x02c", "a\x1eb", "\x02a\x02b\x03c", "\x02a\x03b\x03"):
        with pytest.raises(DataError, match="marks of a set"):
            model.complete([prompt], length=2)
    with pytest.raises(DataError, match="at least one symbol"):
        model.complete(["\x02a\x03"], length=2)
    wide = find("set-based-prompting")(**SMALL, marks=("<<", "|", ">>")).build(TEXT)
    with pytest.raises(DataError, match="one symbol each"):
        wide.complete(["a<<b|c>>d"], length=2)


def test_facts_are_multiplied() -> None:
    """The place-by-place product is normalised; with particles, samples follow the product of whole images."""
    model = find("compositional-generation")(factors=(2, 1), width=16, depth=1, heads=2).build(toy("grid"), seed=3)
    generator = model.generator
    for weight in generator.parameters():
        weight.data.mul_(1.5)
    cells = enumerate_values(generator.space)
    told = Condition(label=torch.ones(len(cells), dtype=torch.int64))
    with torch.no_grad():
        place_by_place = generator.log_prob(cells, condition=told).double().sum(1)
        each = [m.log_prob(cells, condition=told).double().sum(1) for m in members(generator)]
    assert abs(float(place_by_place.exp().sum()) - 1) < 1e-4
    powers = [1.0, 1.0, -1.0]
    whole = sum(p * e for p, e in zip(powers, each, strict=True))
    torch.testing.assert_close(product_log_prob(members(generator), powers, cells), sum(
        p * m.log_prob(cells).double().sum(1).detach() for p, m in zip(powers, members(generator), strict=True)
    ))  # fmt: skip
    target = torch.softmax(torch.as_tensor(whole), 0)
    assert float((target - place_by_place.exp()).abs().sum()) > 0.05, "both products agree, so that nothing is tested"
    draws = 3000
    request = Request(Noise.of(2, draws), Condition(label=torch.ones(draws, dtype=torch.int64)))
    assert chi_square(WholeProduct(64)(generator, request), cells, target) > 1e-3
    with pytest.raises(UnsupportedError, match="ensemble"):
        members(find("gpt")(**SMALL).build(TEXT).generator)


def test_factors_have_to_fit_the_labels() -> None:
    with pytest.raises(ValueError, match="make 6 labels, the data have 2"):
        find("compositional-generation")(factors=(3, 2), width=16, depth=1, heads=2).build(toy("grid"))
    with pytest.raises(ValueError, match="need as many powers"):
        LogLinear([1.0]).build(toy_space := find("gpt")(**SMALL).build(TEXT).space, 2 * toy_space.largest)
