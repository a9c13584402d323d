"""Speculative decoding keeps the target's distribution, whatever the draft; its relaxed relatives keep their bounds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ancestral.decoding.decoders import Ancestral, Request
from ancestral.decoding.drafts import Drafter, EarlyLayers, Lookup, Proposal, SmallModel
from ancestral.decoding.pruning import smaller
from ancestral.decoding.relaxed import BigLittle, Lantern, induced, lend, neighbours
from ancestral.decoding.speculative import Speculative, judge
from ancestral.decoding.tracks import Track
from ancestral.errors import UnsupportedError
from ancestral.generator import Generator
from ancestral.heads import Categorical, GaussianMixture
from ancestral.laws import chi_square
from ancestral.networks import CausalTransformer, LanguageTransformer, QueryTransformer, Recurrent
from ancestral.noise import Noise
from ancestral.order import Order, RandomOrders
from ancestral.quantisation import FineQuant, rounded
from ancestral.recipes.toys import enumerate_values
from ancestral.space import Condition, Space

SMALLEST_P = 1e-3


def built(kind: str = "causal", seed: int = 0, space: Space | None = None) -> Generator:
    torch.manual_seed(seed)
    space = space or Space((3,), 3)
    networks: dict[str, Any] = {
        "causal": lambda: CausalTransformer(16, 2, targets=False),
        "language": lambda: LanguageTransformer(16, 2, 4, 2, tied=False),
        "query": lambda: QueryTransformer(16, 2),
        "recurrent": lambda: Recurrent(16, 1),
    }
    head = Categorical(per_site=False)
    made = Generator(networks[kind](), head, RandomOrders() if kind == "query" else "raster").build(space).eval()
    for weight in made.head.parameters():  # sharper than at the start, so that drafts are often wrong
        weight.data.mul_(3)
    return made


def table(generator: Generator, order: Order | None = None) -> tuple[Tensor, Tensor]:
    cells = enumerate_values(generator.space, order or generator.order.scoring())
    with torch.no_grad():
        return cells, generator.log_prob(cells, order).double().sum(1).exp()


@dataclass(frozen=True)
class Never:
    """Drafts a value that the target cannot draw."""

    def start(self, target: Generator, order: Order, condition: Condition, options: dict[str, Any]) -> Drafter:
        return _Never(order)


class _Never:
    passes = 0

    def __init__(self, order: Order):
        self.order = order

    def propose(self, values: Tensor, first: int, count: int, rows: int, noise: Noise) -> Proposal:
        values = values.expand(rows, -1).clone()
        for k in range(first, first + count):
            values[:, self.order.sets[k]] = 2
        return Proposal(values, None, count)

    def keep(self, sets: int, row: int) -> None:
        pass


def without(generator: Generator, value: int) -> Generator:
    """The same model with no chance of ``value``."""
    generator.head.bias.data[value] = -1e9
    return generator


@st.composite
def pairs(draw: Any) -> tuple[Tensor, Tensor]:
    weights = [draw(st.lists(st.integers(0, 4), min_size=4, max_size=4).filter(any)) for _ in range(2)]
    p, q = (torch.tensor(w, dtype=torch.float64) for w in weights)
    return p / p.sum(), q / q.sum()


@given(pairs())
@settings(max_examples=40, deadline=None)
def test_one_candidate_by_exact_enumeration(pair: tuple[Tensor, Tensor]) -> None:
    """All thresholds and edges are multiples of 1/lcm, so a grid of midpoints measures each event exactly."""
    p, q = pair
    found = torch.zeros(4, dtype=torch.float64)
    for x in torch.nonzero(q)[:, 0].tolist():
        accept = min(1.0, float(p[x] / q[x]))
        value, winner = judge(p, [q], [x], torch.tensor([accept - 1e-9, 0.5], dtype=torch.float64))
        assert (value, winner) == (x, 0) or accept < 1e-9
        found[x] += q[x] * accept
        if accept < 1 - 1e-9:
            rest = (p - q).clamp(min=0) / (p - q).clamp(min=0).sum()
            edges = [0.0, *rest.cumsum(0).tolist()]
            for y, (a, b) in enumerate(itertools.pairwise(edges)):
                if b - a > 1e-9:
                    u = torch.tensor([accept + 1e-9, (a + b) / 2], dtype=torch.float64)
                    assert judge(p, [q], [x], u) == (y, None)
                    found[y] += q[x] * (1 - accept) * (b - a)
    torch.testing.assert_close(found, p)


@pytest.mark.parametrize("certain", [False, True])
def test_several_candidates_follow_the_target(certain: bool) -> None:
    p = torch.tensor([0.1, 0.5, 0.15, 0.25], dtype=torch.float64)
    q = torch.tensor([0.4, 0.1, 0.3, 0.2], dtype=torch.float64)
    noise = Noise.of(3, 4000)
    shown = torch.multinomial(q, 12000, True, generator=torch.Generator().manual_seed(1)).reshape(-1, 3)
    shown = torch.tensor([[3, 0, 2]]).expand(4000, 3) if certain else shown
    uniforms = noise.uniform(4)
    drawn = [judge(p, [None if certain else q] * 3, s.tolist(), u) for s, u in zip(shown, uniforms, strict=True)]
    values = torch.tensor([[v] for v, _ in drawn])
    assert chi_square(values, torch.arange(4)[:, None], p) > SMALLEST_P
    assert {w for _, w in drawn} == {None, 0, 1, 2}, "some outcome never came up"


@pytest.mark.parametrize(
    ("kind", "draft"),
    [
        ("causal", "small"),
        ("causal", "lookup"),
        ("language", "early"),
        ("query", "small"),
        ("recurrent", "never"),
        ("language", "pruned"),
        ("recurrent", "pruned"),
    ],
)
def test_samples_follow_the_target(kind: str, draft: str) -> None:
    space = Space((5,), 2) if draft == "lookup" else None  # room for repetitions
    target = built(kind, space=space)
    if draft == "never":
        target = without(target, 2)
    choice = {"small": SmallModel(built("causal", 5)), "early": EarlyLayers(1), "lookup": Lookup(), "never": Never()}
    if draft == "pruned":  # one of three symbols is never drafted, and is drawn all the same
        drop = {0} if kind == "language" else ()
        choice["pruned"] = SmallModel(smaller(target, drop, torch.tensor([2, 0]), bits=8))
    decoder = Speculative(choice[draft], ahead=2)
    drawn = decoder(target, Request(Noise.of(11, 250)))
    cells, probability = table(target)
    assert chi_square(drawn, cells, probability) > SMALLEST_P
    if draft == "never":
        assert decoder.report.accepted == 0
        assert decoder.report.passes == decoder.report.sets == 3 * 250
    else:
        assert 0 < decoder.report.acceptance < 1, "the draft is never right or never wrong"


@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize("kind", ["causal", "query"])
def test_the_target_itself_is_always_accepted(kind: str, candidates: int) -> None:
    target = built(kind, space=Space((7,), 3))
    decoder = Speculative(SmallModel(target), ahead=2, candidates=candidates)
    decoder(target, Request(Noise.of(0, 5)))
    assert decoder.report.acceptance == 1
    assert decoder.report.passes == 5 * 3  # 3 + 3 + 1 sets, or 1 + 3 + 3


@pytest.mark.parametrize("kind", ["causal", "recurrent"])
def test_candidates_that_are_never_accepted(kind: str) -> None:
    target = without(built(kind), 2)
    decoder = Speculative(Never(), ahead=2, candidates=3)
    drawn = decoder(target, Request(Noise.of(13, 250)))
    assert chi_square(drawn, *table(target)) > SMALLEST_P
    assert decoder.report.accepted == 0 and decoder.report.passes == decoder.report.sets == 3 * 250


def test_a_rounded_self_drafts_and_stops_where_it_is_unsure() -> None:
    target = built(space=Space((5,), 3))
    draft = rounded(target, FineQuant(4))
    assert all(a is b for a, b in zip(draft.head.parameters(), target.head.parameters(), strict=True))
    eager, careful = (Speculative(SmallModel(draft, sure=s), ahead=3) for s in (0.0, 0.6))
    for decoder in (eager, careful):
        drawn = decoder(target, Request(Noise.of(14, 250)))
        assert chi_square(drawn, *table(target)) > SMALLEST_P
    assert 0.7 < eager.report.acceptance < 1
    assert 0 < careful.report.drafted < eager.report.drafted


def test_repetitions_may_have_to_be_longer() -> None:
    target = built(space=Space((20,), 3))
    short, long = Speculative(Lookup(3)), Speculative(Lookup(3, least=3))
    for decoder in (short, long):
        decoder(target, Request(Noise.of(15, 10)))
    assert 0 < long.report.drafted < short.report.drafted


@pytest.mark.parametrize(("kind", "draft"), [("causal", "small"), ("query", "lookup"), ("causal", "pruned")])
def test_candidates_in_one_pass_follow_the_target(kind: str, draft: str) -> None:
    target = built(kind, space=Space((4,), 3))
    choice = {
        "small": SmallModel(built("causal", 5, target.space)),
        "lookup": Lookup(),
        "pruned": SmallModel(smaller(built("causal", 5, target.space), {1}, torch.tensor([0, 2]))),
    }
    decoder = Speculative(choice[draft], ahead=2, candidates=3)
    drawn = decoder(target, Request(Noise.of(12, 250)))
    assert chi_square(drawn, *table(target)) > SMALLEST_P


def test_sets_of_several_sites_follow_the_target() -> None:
    torch.manual_seed(1)
    order = Order(torch.tensor([0, 1, 1, 2, 2]))
    space = Space((5,), 2)
    target = Generator(CausalTransformer(16, 2), Categorical(), RandomOrders(order)).build(space).eval()
    draft = Generator(CausalTransformer(16, 1), Categorical(), RandomOrders(order)).build(space).eval()
    decoder = Speculative(SmallModel(draft), ahead=2)
    drawn = decoder(target, Request(Noise.of(3, 250), order=order))
    assert chi_square(drawn, *table(target, order)) > SMALLEST_P
    with pytest.raises(UnsupportedError, match="single sites"):
        Speculative(SmallModel(draft), candidates=2)(target, Request(Noise.of(3, 1), order=order))


def test_sequences_end_and_known_sites_stay() -> None:
    space = Space((4,), 4, stop=3)
    target, draft = built(space=space), built(seed=9, space=space)
    decoder = Speculative(SmallModel(draft), ahead=2)
    drawn = decoder(target, Request(Noise.of(5, 250)))
    assert chi_square(drawn, *table(target)) > SMALLEST_P
    given, known = torch.tensor([[1, 0, 0, 0]]).expand(200, 4), (torch.arange(4) < 1).expand(200, 4)
    drawn = decoder(target, Request(Noise.of(6, 200), given=given, known=known))
    cells, probability = table(target)
    fits = cells[:, 0] == 1
    assert chi_square(drawn, cells[fits], probability[fits] / probability[fits].sum()) > SMALLEST_P
    any_order = built("query")
    known = (torch.arange(3) == 2).expand(200, 3)
    drawn = decoder_of("query")(any_order, Request(Noise.of(6, 200), given=torch.full((200, 3), 2), known=known))
    order = any_order.order.scoring().given(known[0])
    cells, probability = table(any_order, order)
    fits = cells[:, 2] == 2
    assert chi_square(drawn, cells[fits], probability[fits] / probability[fits].sum()) > SMALLEST_P


def decoder_of(kind: str) -> Speculative:
    return Speculative(SmallModel(built(kind, 5)), ahead=2)


def test_an_item_does_not_depend_on_the_batch() -> None:
    target = built(space=Space((9,), 3))
    decoder = Speculative(SmallModel(built(seed=4, space=Space((9,), 3))), ahead=3, candidates=2)
    together = decoder(target, Request(Noise.of(8, 6)))
    alone = decoder(target, Request(Noise.of(8, 2, first=3)))
    assert torch.equal(together[3:5], alone)


def test_kept_keys_give_what_a_full_pass_gives() -> None:
    space = Space((12,), 5)
    generator = built("language", space=space)
    plain = Track(generator, generator.order.scoring())
    plain._cached = False
    kept = Track(generator, generator.order.scoring())
    random = torch.Generator().manual_seed(0)
    values = torch.randint(0, 5, (1, 12), generator=random)
    k, rows = 0, 1
    for _ in range(8):
        count = int(torch.randint(1, 4, (), generator=random))
        last = min(12, k + count)
        wide = values.expand(rows, 12).clone()
        wide[:, k:] = torch.randint(0, 5, (rows, 12 - k), generator=random)
        for a, b in zip(kept.log_probs(wide, k, last), plain.log_probs(wide, k, last), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
        row = int(torch.randint(0, rows, (), generator=random))
        values = wide[row : row + 1]
        k = int(torch.randint(k + 1, last + 1, (), generator=random))
        kept.keep(k, row)
        rows = int(torch.randint(1, 4, (), generator=random))
        if k >= 11:
            break
    assert k > 5


def test_greedy_text_is_the_targets() -> None:
    space = Space((30,), 4)
    target = built(space=space)
    expected = Ancestral()(target, Request(Noise.of(0, 3), options={"temperature": 0}))
    some = SmallModel(smaller(target, (), torch.tensor([0, 1]), bits=8))
    for draft in (SmallModel(built(seed=2, space=space)), some, Lookup(), EarlyLayers(1)):
        decoder = Speculative(draft, ahead=4)
        assert torch.equal(decoder(target, Request(Noise.of(0, 3), options={"temperature": 0})), expected)
        assert decoder.report.passes + decoder.report.accepted == decoder.report.sets
    assert decoder.report.accepted > 0
    exact = BigLittle(SmallModel(built(seed=2, space=space)), fallback=0.0, rollback=0.0)
    assert torch.equal(exact(target, Request(Noise.of(0, 3), options={"temperature": 0})), expected)


def test_bild_between_its_two_models() -> None:
    target, little = built(), built(seed=5)
    always = BigLittle(SmallModel(little), fallback=1.1)
    drawn = always(target, Request(Noise.of(1, 250)))
    assert chi_square(drawn, *table(target)) > SMALLEST_P
    assert always.report.passes == 3 * 250
    never = BigLittle(SmallModel(little), fallback=0.0, rollback=float("inf"))
    drawn = never(target, Request(Noise.of(1, 250)))
    assert chi_square(drawn, *table(little)) > SMALLEST_P
    assert never.report.passes == 250
    few = BigLittle(SmallModel(smaller(little, (), torch.tensor([1]))), fallback=0.0, rollback=float("inf"))
    assert bool((few(target, Request(Noise.of(1, 20))) == 1).all())
    between = BigLittle(SmallModel(little), fallback=0.5, rollback=2.0)
    between(target, Request(Noise.of(1, 60)))
    assert 0 < between.report.accepted < between.report.drafted
    with pytest.raises(UnsupportedError, match="must be a model"):
        BigLittle(Lookup())(target, Request(Noise.of(1, 1)))


@given(pairs(), st.floats(0, 0.6), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_lantern_changes_each_target_by_delta_at_most(pair: tuple[Tensor, Tensor], delta: float, count: int) -> None:
    p, q = pair
    near = neighbours(torch.tensor([[0.0], [1.0], [3.0], [7.0]], dtype=torch.float64), count)
    assert near[2].tolist() == [1, 0, 3][:count]
    for x in range(4):
        changed = lend(p, x, near[x], delta)
        assert float(changed.sum()) == pytest.approx(1)
        assert 0.5 * float((changed - p).abs().sum()) <= delta + 1e-12
        assert float(changed[x]) >= float(p[x])
    exact = induced(p, q, lambda p, x: lend(p, x, near[x], 0.0))
    if bool((p > 0).all()):
        torch.testing.assert_close(exact, p)


def test_lantern_draws_what_it_induces() -> None:
    longer, small = (built(seed=s, space=Space((2,), 4)) for s in (0, 5))
    rule = Lantern(2, 0.4)
    decoder = Speculative(SmallModel(small), ahead=1, relax=rule)
    drawn = decoder(longer, Request(Noise.of(2, 500)))[:, :1]
    values = torch.zeros(1, 2, dtype=torch.int64)
    p, q = (Track(g, g.order.scoring()).log_probs(values, 0, 1)[0][0, 0].exp() for g in (longer, small))
    expected = induced(p, q, rule.start(longer))
    assert chi_square(drawn, torch.arange(4)[:, None], expected) > SMALLEST_P
    assert float((expected - p).abs().sum()) > 0.02, "nothing was relaxed"
    exact = Speculative(SmallModel(small), ahead=1)
    exact(longer, Request(Noise.of(2, 500)))
    assert decoder.report.acceptance > exact.report.acceptance


def test_neighbours_of_a_large_vocabulary_are_found_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = torch.randn(300, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    some = torch.tensor([7, 299, 0])
    assert torch.equal(neighbours(codes, 5, some), neighbours(codes, 5)[some])
    asked: list[int] = []
    whole = torch.cdist

    def counted(a: Tensor, b: Tensor) -> Tensor:
        asked.append(len(a) * len(b))
        return whole(a, b)

    monkeypatch.setattr(torch, "cdist", counted)
    relax = Lantern(3, 0.5, codes).start(built(space=Space((2,), 300)))
    p = torch.full((300,), 1 / 300, dtype=torch.float64)
    assert torch.equal(relax(p, 7), lend(p, 7, neighbours(codes, 3, torch.tensor([7]))[0], 0.5))
    assert max(asked) == 300


def test_what_cannot_be_drafted_is_refused() -> None:
    target = built()
    with pytest.raises(UnsupportedError, match="causal transformer"):
        Speculative(EarlyLayers(1))(built("query"), Request(Noise.of(0, 1)))
    with pytest.raises(UnsupportedError, match="same tokenizer"):
        Speculative(SmallModel(built(space=Space((5,), 3))))(target, Request(Noise.of(0, 1)))
    with pytest.raises(UnsupportedError, match="guidance"):
        Speculative(Lookup())(target, Request(Noise.of(0, 1), guidance=1.0))
    real = Generator(CausalTransformer(16, 1), GaussianMixture(2)).build(Space((3,), 0, event=(1,))).eval()
    with pytest.raises(UnsupportedError, match="finite"):
        Speculative(Lookup())(real, Request(Noise.of(0, 1)))
