"""The one traversal: drawing, scoring, guiding and conditioning agree with the parallel pass and with Bayes' rule."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral.decoding.complete import complete_values, method_for
from ancestral.decoding.decoders import Ancestral
from ancestral.decoding.walk import Draw, Given, draw_categories, walk
from ancestral.errors import DataError
from ancestral.generator import Generator
from ancestral.heads import Categorical, Finite, GaussianMixture, Nested
from ancestral.networks import CausalTransformer, QueryTransformer
from ancestral.noise import Noise, item_seeds
from ancestral.order import RandomOrders
from ancestral.space import Condition, Space


def built(kind: str) -> Generator:
    torch.manual_seed(0)
    if kind == "fixed":
        return Generator(CausalTransformer(16, 2), Categorical()).build(Space((2, 2), 3, classes=2)).eval()
    if kind == "any":
        made = Generator(QueryTransformer(16, 2), Categorical(), RandomOrders())
        return made.build(Space((2, 2), 3, classes=2)).eval()
    if kind == "real":
        return Generator(CausalTransformer(16, 2), GaussianMixture(3)).build(Space((3,), 0, event=(2,))).eval()
    if kind == "nested real":
        inner = Generator(CausalTransformer(8, 1), GaussianMixture(3))
        return Generator(CausalTransformer(16, 2), Nested(inner)).build(Space((3,), 0, event=(2,))).eval()
    inner = Generator(CausalTransformer(8, 1), Categorical())
    return Generator(CausalTransformer(16, 2), Nested(inner)).build(Space((2,), 3, event=(2,))).eval()


def draw(log_probs: torch.Tensor, **options: float) -> torch.Tensor:
    return Draw(Noise.of(0, len(log_probs)), **options).adjust(log_probs).exp()  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9), st.floats(0.2, 3), st.integers(1, 9), st.floats(0.05, 1))
def test_truncations_are_their_closed_forms(logits: list[float], t: float, k: int, share: float) -> None:
    p = torch.softmax(torch.tensor([[logits]], dtype=torch.float64), -1)
    lp = p.log()
    torch.testing.assert_close(draw(lp, temperature=t), torch.softmax(lp / t, -1))
    kept = draw(lp, top_k=k)[0, 0] > 0
    assert int(kept.sum()) == min(k, len(logits))
    if (~kept).any():
        assert float(p[0, 0][kept].min()) >= float(p[0, 0][~kept].max())
    nucleus = draw(lp, top_p=share)[0, 0] > 0
    assert float(p[0, 0][nucleus].sum()) >= min(share, 1) - 1e-9
    smallest = p[0, 0][nucleus].min()
    assert float(p[0, 0][nucleus].sum() - smallest) < share  # none could be left out
    bar = draw(lp, min_p=share)[0, 0] > 0
    clear = (p[0, 0] - share * p.max()).abs() > 1e-9
    assert torch.equal(bar[clear], (p[0, 0] >= share * p.max())[clear])
    assert int((draw(lp, temperature=0)[0, 0] > 0).sum()) == 1


def test_truncations_compose_in_the_order_temperature_top_k_min_p_top_p() -> None:
    p = torch.tensor([[[0.4, 0.3, 0.15, 0.1, 0.05]]], dtype=torch.float64)
    assert (draw(p.log(), top_k=3, top_p=0.6)[0, 0] > 0).tolist() == [True, True, False, False, False]
    # Squared and normalised, the first two hold 0.25 / 0.285 of the mass.
    assert (draw(p.log(), temperature=0.5, top_p=0.85)[0, 0] > 0).tolist() == [True, True, False, False, False]
    assert (draw(p.log(), min_p=0.3, top_k=4)[0, 0] > 0).tolist() == [True, True, True, False, False]
    assert (draw(p.log(), temperature=0, top_p=0.99)[0, 0] > 0).tolist() == [True, False, False, False, False]


def test_draws_follow_the_probabilities_and_never_the_impossible() -> None:
    p = torch.tensor([0.0, 0.2, 0.0, 0.5, 0.3, 0.0])
    drawn = draw_categories(p.log().expand(9000, 1, 6), Noise.of(5, 9000))[:, 0]
    counts = drawn.bincount(minlength=6)
    assert (counts[p == 0] == 0).all()
    seen = p > 0
    # Two degrees of freedom: beyond 18.4 with probability 1e-4.
    assert float(((counts[seen] - 9000 * p[seen]) ** 2 / (9000 * p[seen])).sum()) < 18.4


@pytest.mark.parametrize(
    "options",
    [
        *[{"temperature": t} for t in (-1, math.nan, math.inf)],
        *[{"top_k": k} for k in (0, math.nan)],
        *[{name: share} for name in ("top_p", "min_p") for share in (0.0, 2.0, math.nan)],
    ],
)
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(DataError, match=f"{next(iter(options))}=.* must be"):
        Draw(Noise.of(0, 1), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["fixed", "any", "nested", "real", "nested real"])
def test_scoring_step_by_step_equals_the_parallel_pass(kind: str) -> None:
    generator = built(kind)
    values = generator.sample(Noise.of(1, 20))
    given_ = Given()
    back = walk(generator, given_, 20, generator.order.scoring(), given=values)
    assert torch.equal(back.values, values)
    with torch.no_grad():
        expected = generator.log_prob(values).double().sum(1)
    torch.testing.assert_close(given_.log_prob, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["fixed", "any", "nested"])
def test_a_sample_does_not_depend_on_its_batch(kind: str) -> None:
    generator = built(kind)
    many = generator.sample(Noise.of(7, 12))
    for i in range(12):
        assert torch.equal(generator.sample(Noise.of(7, 1, first=i))[0], many[i])


def test_guided_walk_equals_two_separate_passes() -> None:
    generator = built("any")
    label = torch.tensor([0, 1, 1])
    values = torch.randint(3, (3, 4), generator=torch.Generator().manual_seed(0))
    seen = []

    class Spy(Given):
        def __call__(self, leaf, given, alive):  # type: ignore[no-untyped-def]
            seen.append(leaf.log_probs())
            return super().__call__(leaf, given, alive)

    told = Condition(label=label)
    order = generator.order.scoring()
    walk(generator, Spy(), 3, order, told, given=values, base=(told.without_label(), 2.0))
    sites = torch.arange(4)
    with torch.no_grad():
        top = generator.head(generator.network(values, order, told), sites)
        low = generator.head(generator.network(values, order, told.without_label()), sites)
        assert isinstance(top, Finite)
        expected = top.guided(low, 2.0).log_probs()
    torch.testing.assert_close(torch.cat(seen, 1), expected, atol=1e-5, rtol=1e-5)


def posterior(
    generator: Generator, known: torch.Tensor, values: torch.Tensor, any_order: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """All completions of one item and their probabilities by Bayes' rule under the order that is followed."""
    every = torch.tensor(list(itertools.product(range(3), repeat=4)))
    fits = (every[:, known] == values[known]).all(1)
    order = generator.order.scoring().given(known) if any_order else generator.order.scoring()
    with torch.no_grad():
        lp = generator.log_prob(every[fits], order).double().sum(1)
    return every[fits], torch.softmax(lp, 0)


@pytest.mark.parametrize(
    ("kind", "known", "method", "tolerance"),
    [
        ("any", [0, 1, 0, 1], "exact", 0.0),
        ("fixed", [1, 1, 0, 0], "prefix", 0.0),
        ("fixed", [0, 0, 1, 1], "importance", 0.01),
    ],
)
def test_completion_is_bayes_rule(kind: str, known: list[int], method: str, tolerance: float) -> None:
    generator = built(kind)
    mask, values = torch.tensor(known, dtype=torch.bool), torch.tensor([2, 1, 0, 2])
    # Ignoring the weights would be 0.079 off at one completion, where 3000 items allow 0.046.
    n = 3000
    done = complete_values(
        generator,
        values.expand(n, 4),
        mask.expand(n, 4),
        seeds=item_seeds(0, torch.arange(n)),
        condition=Condition(),
        order=None,
        decoder=Ancestral(),
        guidance=0.0,
        options={},
        particles=20,
        batch_size=3000,
    )
    assert done.method == method == method_for(generator, mask.expand(n, 4))
    assert (done.values[:, mask] == values[mask]).all()
    every, p = posterior(generator, mask, values, kind == "any")
    found = (done.values[:, None] == every[None]).all(-1).long().argmax(1)
    share = found.bincount(minlength=len(every)).double() / n
    # Four standard errors of a share, and for importance resampling its bias of order 1 / particles.
    assert ((share - p).abs() <= 4 * (p * (1 - p) / n).sqrt() + tolerance).all()


def test_a_stopped_sequence_stays_stopped() -> None:
    torch.manual_seed(0)
    generator = Generator(CausalTransformer(16, 1), Categorical()).build(Space((6,), 3, stop=2)).eval()
    values = generator.sample(Noise.of(0, 200))
    ended = ((values == 2).long().cumsum(1) - (values == 2).long()) > 0
    assert ended.any() and (values[ended] == 2).all()


def stopping() -> tuple[Generator, torch.Tensor, torch.Tensor]:
    """A model of sequences of at most 4 symbols, all its values, and their log-probabilities."""
    torch.manual_seed(0)
    generator = Generator(CausalTransformer(16, 2), Categorical()).build(Space((4,), 3, stop=2)).eval()
    every = torch.tensor(list(itertools.product(range(3), repeat=4)))
    stopped = (every == 2).long().cummax(1).values.bool()
    every = every[(~stopped | (every == 2)).all(1)]
    with torch.no_grad():
        return generator, every, generator.log_prob(every).double().sum(1)


def fill(generator: Generator, known: torch.Tensor, values: torch.Tensor, n: int) -> torch.Tensor:
    done = complete_values(
        generator,
        values.expand(n, 4),
        known.expand(n, 4),
        seeds=item_seeds(0, torch.arange(n)),
        condition=Condition(),
        order=None,
        decoder=Ancestral(),
        guidance=0.0,
        options={},
        particles=100,
        batch_size=n,
    )
    assert done.method == "importance"
    return done.values


@pytest.mark.parametrize(
    ("known", "values"),
    [
        ([0, 0, 1, 0], [0, 0, 1, 0]),
        ([0, 0, 1, 0], [0, 0, 2, 0]),
        ([0, 1, 0, 1], [0, 0, 0, 1]),
        ([0, 1, 0, 1], [0, 0, 0, 2]),
    ],
)
def test_gaps_before_a_known_symbol_or_a_known_end(known: list[int], values: list[int]) -> None:
    """Bayes' rule over sequences that end: no stop before a known symbol, nothing behind a stop."""
    generator, every, lp = stopping()
    assert float(lp.exp().sum()) == pytest.approx(1, abs=1e-5)
    mask, shown, n = torch.tensor(known, dtype=torch.bool), torch.tensor(values), 1500
    drawn = fill(generator, mask, shown, n)
    fits = (every[:, mask] == shown[mask]).all(1)
    p = torch.softmax(lp[fits], 0)
    hits = (drawn[:, None] == every[fits][None]).all(-1)
    assert hits.any(1).all(), "a completion that no sequence of the model agrees with"
    share = hits.double().mean(0)
    assert ((share - p).abs() <= 4 * (p * (1 - p) / n).sqrt() + 0.02).all()


def test_a_known_symbol_behind_a_known_end_is_refused() -> None:
    generator, _, _ = stopping()
    with pytest.raises(DataError, match="probability 0"):
        fill(generator, torch.tensor([False, True, False, True]), torch.tensor([0, 2, 0, 1]), 4)


@pytest.mark.parametrize(
    ("kind", "known", "values"),
    [
        ("fixed", [0, 0, 1, 1], [2, 1, 0, 2]),
        ("fixed", [1, 0, 1, 0], [2, 1, 0, 2]),
        ("fixed", [0, 1, 0, 0], [2, 1, 0, 2]),
        ("stopping", [0, 0, 1, 0], [0, 0, 1, 0]),
        ("stopping", [0, 1, 0, 1], [0, 0, 0, 1]),
        ("stopping", [0, 0, 0, 1], [0, 0, 0, 2]),
        ("stopping", [1, 0, 0, 1], [0, 0, 0, 2]),
    ],
)
def test_likelihood_weights_estimate_the_evidence(kind: str, known: list[int], values: list[int]) -> None:
    """The mean weight of forced draws is the probability of the known sites, without bias."""
    if kind == "stopping":
        generator, every, lp = stopping()
    else:
        generator, every = built(kind), torch.tensor(list(itertools.product(range(3), repeat=4)))
        with torch.no_grad():
            lp = generator.log_prob(every).double().sum(1)
    mask, shown, n = torch.tensor(known, dtype=torch.bool), torch.tensor(values), 20_000
    order = generator.order.scoring()
    walked = walk(generator, Draw(Noise.of(3, n)), n, order, given=shown.expand(n, 4), known=mask.expand(n, 4))
    assert (walked.values[:, mask] == shown[mask]).all()
    truth = float(lp[(every[:, mask] == shown[mask]).all(1)].exp().sum())
    weight = walked.log_weight.exp()
    assert abs(float(weight.mean()) - truth) <= 5 * float(weight.std()) / n**0.5 + 1e-6
