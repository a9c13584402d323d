"""Control of decoding: beams, samples without replacement, grammars, words, compositions, gaps, prompts of sets."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import ancestral
from ancestral.decoding.composition import Mixture, Product, mixture_log_prob, product_log_prob
from ancestral.decoding.decoders import Ancestral, Request
from ancestral.decoding.drafts import EarlyLayers, Lookup, SmallModel
from ancestral.decoding.guides import Grammar, Guided
from ancestral.decoding.infill import infill
from ancestral.decoding.lexical import Automaton, Containing, HiddenMarkov, Keywords, look_ahead
from ancestral.decoding.relaxed import BigLittle, Lantern
from ancestral.decoding.search import Beam, distinct, search
from ancestral.decoding.set_prompt import SetPrompt, complete_set
from ancestral.decoding.speculative import Speculative
from ancestral.errors import DataError, UnsupportedError
from ancestral.generator import Generator
from ancestral.heads import Categorical
from ancestral.laws import chi_square
from ancestral.networks import CausalTransformer, LanguageTransformer, QueryTransformer, Recurrent
from ancestral.noise import Noise
from ancestral.order import Order, RandomOrders
from ancestral.quantisation import Gear, keep
from ancestral.recipes.registry import find
from ancestral.recipes.toys import enumerate_values
from ancestral.space import Space

SMALLEST_P = 1e-3


def built(kind: str = "causal", seed: int = 0, space: Space | None = None) -> Generator:
    torch.manual_seed(seed)
    space = space or Space((3,), 3)
    network = {
        "causal": lambda: CausalTransformer(16, 1, targets=False),
        "language": lambda: LanguageTransformer(16, 1, 4, 2, tied=False),
        "query": lambda: QueryTransformer(16, 1),
        "recurrent": lambda: Recurrent(16, 1),
    }[kind]()
    order = RandomOrders() if kind == "query" else "raster"
    made = Generator(network, Categorical(per_site=False), order).build(space).eval()
    for weight in made.head.parameters():
        weight.data.mul_(2)
    return made


def table(generator: Generator) -> tuple[Tensor, Tensor]:
    cells = enumerate_values(generator.space, generator.order.scoring())
    with torch.no_grad():
        return cells, generator.log_prob(cells).double().sum(1)


# -- beams


@pytest.mark.parametrize("kind", ["causal", "language", "query", "recurrent"])
@pytest.mark.parametrize("stop", [None, 2])
def test_a_wide_beam_finds_the_best_of_all(kind: str, stop: int | None) -> None:
    generator = built(kind, space=Space((3,), 3, stop=stop))
    cells, log_prob = table(generator)
    found = search(generator, Request(Noise.of(0, 1)), 27)[0]
    best = log_prob.sort(descending=True)
    assert len(found.values) == len(cells)
    torch.testing.assert_close(found.log_prob, best.values, atol=1e-5, rtol=0)
    assert torch.equal(found.values[0], cells[best.indices[0]])
    assert len(torch.unique(found.values, dim=0)) == len(cells)


def test_a_narrow_beam_is_greedy_and_keeps_what_is_known() -> None:
    generator = built(space=Space((12,), 4))
    greedy = Ancestral()(generator, Request(Noise.of(0, 2), options={"temperature": 0}))
    assert torch.equal(Beam(1)(generator, Request(Noise.of(0, 2))), greedy)
    given, known = torch.full((2, 12), 3), (torch.arange(12) < 5).expand(2, 12)
    wide = Beam(6)(generator, Request(Noise.of(0, 2), given=given, known=known))
    assert bool((wide[:, :5] == 3).all())
    narrow = Beam(1)(generator, Request(Noise.of(0, 2), given=given, known=known))
    with torch.no_grad():
        assert float(generator.log_prob(wide).sum()) >= float(generator.log_prob(narrow).sum())


def test_samples_without_replacement() -> None:
    """Pairs are drawn with ``p_i p_j / (1 - p_i)``, the definition of drawing without replacement."""
    generator = built(space=Space((2,), 2))
    cells, log_prob = table(generator)
    p = log_prob.exp()
    found = search(generator, Request(Noise.of(4, 600)), 2, perturbed=True)
    pairs = torch.stack([f.values.flatten() for f in found])
    every = list(itertools.permutations(range(4), 2))
    expected = torch.stack([p[i] * p[j] / (1 - p[i]) for i, j in every])
    wanted = torch.stack([torch.cat([cells[i], cells[j]]) for i, j in every])
    assert chi_square(pairs, wanted, expected) > SMALLEST_P
    everything = distinct(generator, 10, seed=3)
    assert len(everything.values) == len(torch.unique(everything.values, dim=0)) == 4
    order = [next(i for i, c in enumerate(cells) if torch.equal(c, v)) for v in everything.values]
    torch.testing.assert_close(everything.log_prob, log_prob[torch.tensor(order)], atol=1e-5, rtol=0)
    assert bool((everything.score[:-1] >= everything.score[1:]).all())


def test_beams_refuse_what_they_cannot_follow() -> None:
    torch.manual_seed(0)
    pairs = Generator(CausalTransformer(16, 1), Categorical(), RandomOrders(Order(torch.tensor([0, 0, 1, 1]))))
    with pytest.raises(UnsupportedError, match="single sites"):
        Beam(2)(pairs.build(Space((4,), 2)).eval(), Request(Noise.of(0, 1)))


# -- grammars


@pytest.fixture(scope="module")
def letters() -> ancestral.Model:
    """An untrained model of short texts in bytes that end."""
    return find("gpt")(width=16, depth=1, heads=2, dropout=0.0, length=24, streaming=False).build(["ab"], seed=1)


def test_texts_keep_to_a_regular_expression(letters: ancestral.Model) -> None:
    pytest.importorskip("llguidance", reason="the package llguidance is not installed")
    decoder = Guided(Grammar(letters, regex="(ab|c)*d[0-9]{2}"))
    texts = letters.sample(30, decoder=decoder, seed=2)
    complete = [t for t in texts if len(t) < 24]
    assert all(re.fullmatch("(ab|c)*d[0-9]{2}", t) for t in complete)
    assert len(complete) > 20
    assert len(set(texts)) > 20
    spread = letters.sample(400, decoder=Guided(Grammar(letters, regex="[xy]")), seed=3)
    values = torch.tensor([[ord(t)] for t in spread])
    empty = torch.zeros(1, 24, dtype=torch.int64)
    with torch.no_grad():
        features = letters.generator.network(empty, letters.generator.order.scoring())[:, :1]
        p = letters.generator.head(features, torch.tensor([0])).log_probs()[0, 0].double().exp()
    both = p[[120, 121]] / p[[120, 121]].sum()
    assert chi_square(values, torch.tensor([[120], [121]]), both) > SMALLEST_P


def test_texts_keep_to_a_schema_and_to_a_grammar(letters: ancestral.Model) -> None:
    pytest.importorskip("llguidance", reason="the package llguidance is not installed")
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
              "additionalProperties": False}  # fmt: skip
    options = {"x-guidance": {"whitespace_flexible": False}}
    texts = letters.sample(5, decoder=Guided(Grammar(letters, json=schema | options)))
    assert {type(json.loads(t)["a"]) for t in texts} == {bool}
    balanced = letters.sample(12, decoder=Guided(Grammar(letters, lark='start: "(" start ")" | "x"')))
    done = [t for t in balanced if t.endswith(")") or t == "x"]
    assert done and all(t.count("(") == t.count(")") or len(t) == 24 for t in done)
    with pytest.raises(DataError, match="cannot be read"):
        Grammar(letters, regex="(")
    with pytest.raises(DataError, match="exactly one"):
        Grammar(letters, regex="a", lark="b")
    endless = find("gpt")(width=16, depth=1, heads=2, length=8).build(["ab"])
    with pytest.raises(UnsupportedError, match="an end"):
        Grammar(endless, regex="a")


# -- words


def tiny_hidden() -> HiddenMarkov:
    random = torch.Generator().manual_seed(2)

    def rows(*shape: int) -> Tensor:
        found = torch.rand(*shape, generator=random, dtype=torch.float64)
        return found / found.sum(-1, keepdim=True)

    return HiddenMarkov(rows(2), rows(2, 2), rows(2, 3))


CLAUSES = [
    (((0, 1),),),
    (((2, 2),), ((0,), (1, 1))),
    (((0, 0, 1),), ((1, 0),)),
]


def contains(row: list[int], clauses: tuple[tuple[tuple[int, ...], ...], ...]) -> bool:
    text = ",".join(map(str, row))
    return all(any(",".join(map(str, w)) in text for w in clause) for clause in clauses)


@pytest.mark.parametrize("clauses", CLAUSES)
def test_the_chance_of_the_words_equals_enumeration(clauses: tuple[tuple[tuple[int, ...], ...], ...]) -> None:
    model, automaton = tiny_hidden(), Automaton(clauses)
    chance = look_ahead(model, automaton, 5)
    every = torch.tensor(list(itertools.product(range(3), repeat=5)))
    p = model.log_prob(every).exp()
    assert float(p.sum()) == pytest.approx(1)
    good = torch.tensor([contains(row, clauses) for row in every.tolist()])
    assert 0 < int(good.sum()) < len(every)
    assert float(model.initial @ chance[5, 0]) == pytest.approx(float(p[good].sum()))


@pytest.mark.parametrize("clauses", CLAUSES)
def test_guiding_the_hidden_markov_model_by_itself_is_exact(clauses: tuple[tuple[tuple[int, ...], ...], ...]) -> None:
    """With the same model on both sides the guided chain is the conditional distribution given the words."""
    model = tiny_hidden()
    generator = built(space=Space((5,), 3))
    every = torch.tensor(list(itertools.product(range(3), repeat=5)))
    p = model.log_prob(every).exp()
    for row in every[::17].tolist():
        guiding, plain = Keywords(model, clauses).start(generator, torch.zeros(0).long(), 5), model.initial
        log_prob = 0.0
        for symbol in row:
            joint = plain[:, None] * model.emission
            changed = guiding.adjust(joint.sum(0).log())
            assert float(changed.exp().sum()) > 0 or log_prob == -float("inf")
            log_prob += float(changed[symbol] - changed.logsumexp(0))
            if log_prob == -float("inf"):
                break
            guiding.advance(symbol)
            plain = (joint[:, symbol] / joint[:, symbol].sum()) @ model.transition
        good = torch.tensor([contains(r, clauses) for r in every.tolist()])
        expected = float(p[every.tolist().index(row)] / p[good].sum()) if contains(row, clauses) else 0.0
        assert math.exp(log_prob) == pytest.approx(expected, abs=1e-9)


def test_the_words_always_occur() -> None:
    generator = built(space=Space((8,), 5, stop=4))
    samples = Ancestral()(generator, Request(Noise.of(1, 400)))
    distilled = HiddenMarkov.fit(samples, 5, states=4, rounds=15)
    held = Ancestral()(generator, Request(Noise.of(2, 400)))
    first = HiddenMarkov.fit(samples, 5, states=4, rounds=0)
    assert float(distilled.log_prob(held).mean()) > float(first.log_prob(held).mean()) + 0.1
    clauses = (((3, 1),), ((2, 2, 0), (0, 3)))
    plain = sum(contains(row, clauses) for row in held.tolist()) / 400
    drawn = Guided(Keywords(distilled, clauses))(generator, Request(Noise.of(3, 60)))
    assert plain < 0.5
    assert all(contains(row, clauses) for row in drawn.tolist())
    given, known = torch.full((4, 8), 3), (torch.arange(8) < 3).expand(4, 8)
    drawn = Guided(Keywords(distilled, clauses))(generator, Request(Noise.of(3, 4), given=given, known=known))
    assert all(contains(row[3:], clauses) for row in drawn.tolist())
    with pytest.raises(DataError, match="do not fit into 2"):
        Guided(Keywords(distilled, clauses))(generator, Request(Noise.of(3, 1), sets=2))
    with pytest.raises(DataError, match="spelling"):
        Automaton((((),),))


# -- compositions


def test_a_mixture_is_drawn_exactly() -> None:
    one, two = built(seed=0), built("recurrent", seed=3)
    cells, _ = table(one)
    expected = mixture_log_prob([one, two], (1, 3), cells)
    assert float(expected.exp().sum()) == pytest.approx(1, abs=1e-5)
    drawn = Mixture((two,), (1, 3))(one, Request(Noise.of(5, 3000)))
    assert chi_square(drawn, cells, expected.exp()) > SMALLEST_P
    given, known = torch.full((2000, 3), 1), (torch.arange(3) < 1).expand(2000, 3)
    drawn = Mixture((two,), (1, 3))(one, Request(Noise.of(6, 2000), given=given, known=known))
    fits = cells[:, 0] == 1
    assert chi_square(drawn, cells[fits], expected[fits].softmax(0)) > SMALLEST_P
    with pytest.raises(DataError, match="at least 0"):
        Mixture((two,), (1, -3))


@pytest.mark.parametrize("powers", [(1.0, 1.0), (2.0, -0.5)])
@pytest.mark.parametrize("stop", [None, 2])
def test_weights_of_a_product_are_exact(powers: tuple[float, float], stop: int | None) -> None:
    """Chance of drawing times weight is the product, so that the weights' mean is its normaliser."""
    space = Space((3,), 3, stop=stop)
    one, two = built(seed=0, space=space), built(seed=3, space=space)
    cells, _ = table(one)
    target = product_log_prob([one, two], powers, cells)
    drawn = Product((two,), powers, 4).draw(one, Request(Noise.of(2, 1500)))
    mean, spread = float(drawn.log_weight.exp().mean()), float(drawn.log_weight.exp().std())
    assert mean == pytest.approx(float(target.exp().sum()), abs=5 * spread / 6000**0.5 + 1e-6)
    weight = torch.zeros(len(cells), dtype=torch.float64)
    index = (drawn.values[:, None] == cells).all(-1).float().argmax(1)
    weight.index_add_(0, index, drawn.log_weight.exp())
    chance = torch.bincount(index, minlength=len(cells)) / len(index)
    # For every value: frequency times weight is the product's probability, up to sampling.
    found, wanted = weight / weight.sum(), target.softmax(0)
    assert float((found - wanted).abs().max()) < 0.03
    resampled = Product((two,), powers, 24)(one, Request(Noise.of(9, 1500)))
    counts = torch.bincount((resampled[:, None] == cells).all(-1).float().argmax(1), minlength=len(cells)) / 1500
    assert float((counts - wanted).abs().sum()) < max(0.16, 0.9 * float((chance - wanted).abs().sum()))


# -- gaps


def test_a_gap_follows_bayes_rule() -> None:
    model = find("gpt")(width=16, depth=1, heads=2, dropout=0.0, length=6).build(["ab"], seed=1)
    model.generator.head.bias.data[:] = -1e9
    model.generator.head.bias.data[[97, 98, 99]] = 0.0
    model.generator.head.weight.data.mul_(4)
    texts = ["".join(t) for t in itertools.product("abc", repeat=2)]
    whole = [f"b{t}ca" for t in texts]
    expected = torch.from_numpy(model.log_prob(whole).copy()).softmax(0)
    found = infill(model, "b", "ca", 2, draws=3000, candidates=3000, seed=4)
    assert all(t[0] == "b" and t[3:] == "ca" for t in found.texts)
    counts = torch.tensor([found.texts.count(w) for w in whole]) / 3000
    assert float((counts - expected).abs().sum()) < 0.12
    assert float((expected - 1 / 9).abs().sum()) > 0.3, "the model does not care, so that nothing is tested"
    assert 1 <= found.effective <= 3000
    with pytest.raises(DataError, match="window of 6"):
        infill(model, "bbbb", "ca", 2)
    with pytest.raises(UnsupportedError, match="known="):
        infill(find("gpt")(length=6, streaming=False).build(["ab"]), "a", "b", 1)


# -- prompts of sets


@pytest.mark.parametrize("kind", ["rotary", "learned"])
@given(st.permutations([0, 1, 2, 3]))
@settings(max_examples=12, deadline=None)
def test_the_order_of_the_parts_does_not_matter(kind: str, order: list[int]) -> None:
    torch.manual_seed(0)
    network = LanguageTransformer(16, 2, 4, 2, gated=kind == "rotary", tied=False)
    generator = Generator(network, Categorical(per_site=False)).build(Space((24,), 9)).eval()
    before, after = torch.tensor([1, 2]), torch.tensor([3, 4])
    parts = [torch.tensor(p) for p in ([5, 6, 7], [8], [5, 6], [0, 8, 8, 1])]
    expected, _ = SetPrompt(generator, before, parts, after).read()
    mixed = [parts[i] for i in order]
    assert torch.equal(SetPrompt(generator, before, mixed, after).read()[0], expected)
    unsorted, _ = SetPrompt(generator, before, mixed, after, ordered=True).read()
    torch.testing.assert_close(unsorted, expected, atol=1e-5, rtol=0)
    plain = torch.cat([before, *mixed, after])
    with torch.no_grad():
        values = torch.cat([plain, torch.zeros(24 - len(plain)).long()])[None]
        features = generator.network(values, generator.order.scoring())[:, len(plain)]
        ordinary = generator.head(features[:, None], torch.tensor([len(plain)])).log_probs()[0, 0]
    if order != sorted(order):
        assert float((ordinary - expected).abs().max()) > 1e-3, "an ordinary prompt is invariant already"


def test_one_part_is_an_ordinary_prompt(letters: ancestral.Model) -> None:
    model = find("gpt")(width=16, depth=2, heads=2, dropout=0.0, length=24).build(["ab"], seed=1)
    text = complete_set(model, "The ", ["river"], " runs", length=7, temperature=0)
    assert model.complete(["The river runs"], length=7, temperature=0)[0] == "The river runs" + text
    both = [complete_set(model, "", p, ":", length=5, seed=2) for p in (["red", "green"], ["green", "red"])]
    assert both[0] == both[1]
    with pytest.raises(DataError, match="at least one symbol"):
        complete_set(model, "a", ["b", ""], "c", length=1)
    with pytest.raises(DataError, match="window of 24"):
        complete_set(model, "a", ["b" * 10, "c"], "c", length=12)
    with pytest.raises(UnsupportedError, match="streams"):
        complete_set(letters, "a", ["b"], "c", length=1)


# -- what is no use


@pytest.fixture(scope="module")
def river() -> ancestral.Model:
    made = find("gpt")(width=16, depth=1, heads=2, length=24).build(["The river runs past the mill. " * 4])
    made.generator.eval()
    return made


def test_models_stand_for_their_generators(river: ancestral.Model) -> None:
    inner = river.generator
    for mine, same in (
        (Speculative(SmallModel(river)), Speculative(SmallModel(inner))),  # type: ignore[arg-type]
        (Mixture((river,), (1, 1)), Mixture((inner,), (1, 1))),  # type: ignore[arg-type]
        (Product((river,), (1, 1), 4), Product((inner,), (1, 1), 4)),  # type: ignore[arg-type]
    ):
        drawn = [river.complete(["The river"], length=8, decoder=d) for d in (mine, same)]
        assert drawn[0] == drawn[1]
    assert torch.equal(distinct(river, 2).values, distinct(inner, 2).values)
    keep(river, Gear())
    assert isinstance(inner.network, CausalTransformer) and inner.network.keeping == Gear()
    keep(river, None)
    assert inner.network.keeping is None


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (lambda m: Speculative(m), "no way of drafting"),
        (lambda m: Speculative(Lookup(), ahead=-1), "ahead=-1 must be at least 0"),
        (lambda m: Speculative(Lookup(), candidates=0), "candidates=0 must be at least 1"),
        (lambda m: Lookup(least=0), "least=0"),
        (lambda m: SmallModel("small"), "the draft is a str"),
        (lambda m: Mixture(m, (1, 1)), "tuple of models"),
        (lambda m: m.complete(["a"], length=2, decoder=Mixture((m,), (1,))), "2 models need as many"),
        (lambda m: Product((m,), (1, math.nan)), "finite"),
        (lambda m: Product((m,), (1, 1), 0), "particles=0"),
        (lambda m: Lantern(delta=2.0), "from 0 to 1"),
        (lambda m: Lantern(nearest=-1), "nearest=-1"),
        (
            lambda m: m.complete(
                ["a"], length=9, decoder=Speculative(SmallModel(m), relax=Lantern(codebook=torch.zeros(3, 2)))
            ),
            "3 codes, the model 256 values",
        ),
        (lambda m: BigLittle(EarlyLayers(1), rollback=math.nan), "rollback=nan"),
        (lambda m: Containing(m.tokenizer, "mill"), "tuple of words"),
        (lambda m: Containing(m.tokenizer, ("mill",), states=0), "states=0"),
        (lambda m: m.complete(["a"], length=9, decoder=Containing(m.tokenizer, (3,), samples=2)), "no text"),
        (lambda m: m.complete(["a"], length=2, decoder=Beam(0)), "width=0"),
        (lambda m: m.complete(["a"], length=2, decoder=Beam), "decoder=Beam is none"),
        (lambda m: m.sample(1, length=2, decoder="beam"), "decoder='beam' is none"),
        (lambda m: m.sample(1, length=-2), "length=-2 must be at least 0"),
        (lambda m: distinct(m, 0), "count=0"),
        (lambda m: distinct(m, 2, temp=1), "no option temp="),
        (lambda m: infill(m, "a", "b", 3, candidates=0), "candidates=0"),
        (lambda m: infill(m, "a", "b", 3, temp=1), "no option temp="),
        (lambda m: complete_set(m, "a", "river", "b", length=2), "list of texts"),
        (lambda m: complete_set(m, "a", ["river"], "b", length=-2), "length=-2"),
    ],
)
def test_senseless_wishes_are_one_sentence(river: ancestral.Model, asked: Callable[..., object], says: str) -> None:
    with pytest.raises(DataError) as refused:
        asked(river)
    assert says in str(refused.value)


def test_a_length_of_nothing_adds_nothing(river: ancestral.Model) -> None:
    assert river.complete(["The river"], length=0) == ["The river"]
    assert river.sample(2, length=0) == ["", ""]


def test_items_of_a_fixed_size_take_no_length() -> None:
    model = find("gpt")(width=8, depth=1, heads=1, streaming=False, length=4).build(["abc", "ba"])
    with pytest.raises(DataError, match="length= is for models of streams"):
        model.sample(1, length=7)
