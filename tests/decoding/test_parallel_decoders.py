"""Decoders of the recipes against what they must draw: enumeration where the law is known."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral.decoding.burst import Burst
from ancestral.decoding.decoders import Ancestral, Decoder, Request
from ancestral.decoding.parallel import Planned, RandomSets, plan, random_sets, step_losses
from ancestral.decoding.unmasking import Unmasking
from ancestral.laws import Exam, chi_square, log_probs
from ancestral.noise import Noise
from ancestral.order import Order
from ancestral.recipes.registry import catalogue


@functools.cache
def exam(name: str) -> Exam:
    return Exam(catalogue()[name])


def mixture(name: str) -> torch.Tensor:
    """Exact probability of every item under a uniformly random order."""
    one = exam(name)
    n = one.generator.space.n
    orders = [Order(torch.tensor(p)) for p in itertools.permutations(range(n))]
    each = torch.stack([log_probs(one.generator, one.everything, order) for order in orders])
    return (each.logsumexp(0) - math.log(len(orders))).exp()


@pytest.mark.parametrize(
    ("name", "decoder"),
    [
        ("sigma-gpt", Burst()),
        ("ardm", Planned(3)),
        ("ardm", Ancestral(random_orders=True)),
        ("randar", RandomSets(4)),
        ("md4", RandomSets(4)),
    ],
    ids=lambda x: x if isinstance(x, str) else type(x).__name__,
)
def test_one_site_at_a_time_is_the_mixture_over_orders(name: str, decoder: Decoder) -> None:
    one = exam(name)
    drawn = decoder(one.generator, Request(Noise.of(21, 6000)))
    assert chi_square(drawn, one.everything, mixture(name)) > 1e-3


def test_burst_is_not_the_plain_product() -> None:
    """Accepting every candidate, which rejection exists to prevent, is told apart."""
    one = exam("sigma-gpt")
    drawn = RandomSets(1)(one.generator, Request(Noise.of(22, 6000)))
    assert chi_square(drawn, one.everything, mixture("sigma-gpt")) < 1e-3


def test_burst_takes_fewer_passes_than_sites_where_sites_are_independent() -> None:
    """Where the network sees nothing, every candidate is accepted and a round ends the sample."""
    one = Exam(catalogue()["sigma-gpt"], steps=1)
    assert one.generator.space.n == 4
    with torch.no_grad():
        one.generator.network.embed.table.weight.zero_()
        one.generator.head.weight.zero_()
    passes = 0
    forward = one.generator.network.forward

    def count(*a, **k):
        nonlocal passes
        passes += 1
        return forward(*a, **k)

    one.generator.network.forward = count
    Burst()(one.generator, Request(Noise.of(1, 5)))
    assert passes == 2


def test_burst_keeps_what_is_known_and_conditions_on_it() -> None:
    one = exam("sigma-gpt")
    n = one.generator.space.n
    item = one.items[3]
    known = torch.arange(n) == 2
    request = Request(Noise.of(23, 6000), given=item.expand(6000, n).clone(), known=known.expand(6000, n))
    drawn = Burst()(one.generator, request)
    fits = (one.everything == item)[:, known].all(1)
    rest = torch.nonzero(~known)[:, 0]
    each = []
    for p in itertools.permutations(rest.tolist()):
        rank = torch.zeros(n, dtype=torch.int64)
        rank[list(p)] = torch.arange(1, n)
        each.append(torch.log_softmax(log_probs(one.generator, one.everything[fits], Order(rank)), 0))
    probability = (torch.stack(each).logsumexp(0) - math.log(len(each))).exp()
    assert chi_square(drawn, one.everything[fits], probability) > 1e-3


def test_unmasking_in_many_steps_approaches_the_mixture() -> None:
    one = exam("md4")
    truth = mixture("md4")
    fine = Unmasking(150)(one.generator, Request(Noise.of(24, 1500)))
    coarse = Unmasking(1)(one.generator, Request(Noise.of(24, 3000)))
    assert chi_square(fine, one.everything, truth) > 1e-3
    assert chi_square(coarse, one.everything, truth) < 1e-6


@pytest.mark.parametrize("decoder", [Unmasking(5), RandomSets(3), Planned(3)], ids=lambda d: type(d).__name__)
def test_known_sites_come_back(decoder: Decoder) -> None:
    one = exam("md4")
    known = torch.tensor([True, False, False, True])
    request = Request(Noise.of(25, 16), given=one.items[:16].clone(), known=known.expand(16, 4))
    drawn = decoder(one.generator, request)
    assert torch.equal(drawn[:, known], one.items[:16, known])
    everything = Request(Noise.of(25, 16), given=one.items[:16].clone(), known=torch.ones(16, 4, dtype=torch.bool))
    assert torch.equal(decoder(one.generator, everything), one.items[:16])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 5), min_size=1, max_size=7), st.integers(1, 8))
def test_plan_is_the_cheapest(losses: list[float], steps: int) -> None:
    n = len(losses)
    sizes = plan(losses, steps)
    assert sum(sizes) == n and min(sizes) >= 1 and len(sizes) == min(steps, n)

    def cost(parts: tuple[int, ...]) -> float:
        starts = [sum(parts[:i]) for i in range(len(parts))]
        return sum(k * losses[t] for k, t in zip(parts, starts))

    ways = [w for w in itertools.product(range(1, n + 1), repeat=len(sizes)) if sum(w) == n]
    assert cost(tuple(sizes)) == pytest.approx(min(map(cost, ways)))


def test_plan_takes_small_sets_where_the_loss_falls_fast() -> None:
    losses = [4.0, 2.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert plan(losses, 4) == [1, 1, 1, 5]


def test_step_losses_are_means_over_orders() -> None:
    """The sum of the losses is the bound of a random order: its mean negative log-probability."""
    one = exam("ardm")
    n = one.generator.space.n
    losses = step_losses(one.generator, one.items, draws=24)
    orders = [Order(torch.tensor(p)) for p in itertools.permutations(range(n))]
    exact = -torch.stack([log_probs(one.generator, one.items, o) for o in orders]).mean()
    assert float(losses.sum()) == pytest.approx(float(exact), rel=0.01)
    assert step_losses(one.generator, one.items, points=2)[[0, -1]].isfinite().all()
    planned = Planned.fit(one.generator, one.items, steps=2)
    assert sum(planned.sizes(n, n)) == n and len(planned.sizes(n, n)) == 2


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(0, 8), st.integers(1, 5), st.integers(0, 99))
def test_random_sets_put_known_sites_first(n: int, count: int, steps: int, seed: int) -> None:
    count = min(count, n - 1)
    noise = Noise.of(seed, 5)
    known = torch.argsort(torch.argsort(noise.uniform(n), -1), -1) < count
    sets = torch.arange(n - count) * min(steps, n - count) // (n - count)
    order = random_sets(noise, known, sets)
    assert bool(
        (torch.where(known, order.rank, n)[:, :, None] < torch.where(known, 2 * n, order.rank)[:, None])
        .all(2)[known]
        .all()
    )
    assert order.sizes[:count] == (1,) * count


def test_stratified_times_are_even_and_belong_to_items() -> None:
    noise = Noise.of(3, 64, first=128)
    u = noise.stratified()[:, 0]
    assert torch.equal((u * 64).long().sort().values, torch.arange(64)), "one item in each of 64 intervals"
    assert torch.equal(Noise(noise.seeds[5:6]).stratified()[0], u[5:6])
    other = Noise.of(4, 64, first=128).stratified()[:, 0]
    assert not torch.equal(u, other)
    means = torch.stack([Noise.of(seed, 1).stratified()[0, 0] for seed in range(2000)])
    assert float(means.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(means.min()) > 0 and float(means.max()) < 1
