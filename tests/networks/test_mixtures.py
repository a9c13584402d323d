"""Ensembles and mixtures over classes: what they pool, against sums written out."""

from __future__ import annotations

import math

import pytest
import torch

from ancestral.generator import Generator
from ancestral.heads import Categorical, GaussianMixture, LogLinear
from ancestral.networks import (
    CausalConvolution,
    CausalTransformer,
    ClassMixture,
    Ensemble,
    MaskedConvolution,
    Specialist,
)
from ancestral.networks.base import take
from ancestral.networks.causal_convolution import causal_taps
from ancestral.noise import Noise
from ancestral.objectives import InOrder, Jointly, MaskedLikelihood
from ancestral.order import Order
from ancestral.space import Condition, Space

SPACE = Space((2, 3), 4, classes=3, ordinal=True)
VALUES = torch.randint(4, (5, 6), generator=torch.Generator().manual_seed(1))


def built(network: object, order: str = "raster", head: object = None) -> Generator:
    torch.manual_seed(0)
    made = Generator(network, head or LogLinear(), order, label_dropout=0.0).build(SPACE)  # type: ignore[arg-type]
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return made.eval()


def member() -> tuple[ClassMixture, LogLinear]:
    return ClassMixture(CausalConvolution(8, 2, 0.0), Categorical()), LogLinear()


@pytest.mark.parametrize("order", ["raster", "reverse"])
def test_a_class_mixture_is_the_mean_over_the_classes(order: str) -> None:
    inner = CausalConvolution(8, 2, 0.0) if order == "raster" else CausalTransformer(8, 1)
    generator = built(ClassMixture(inner, Categorical()), order)
    with torch.no_grad():
        given = [generator.log_prob(VALUES, None, Condition(torch.full((5,), c))).sum(1) for c in range(3)]
        mixed = generator.log_prob(VALUES).sum(1)
        some = generator.log_prob(VALUES, None, Condition(torch.tensor([0, -1, 2, -1, 1]))).sum(1)
    expected = torch.stack(given).logsumexp(0) - math.log(3)
    torch.testing.assert_close(mixed, expected)
    assert float((torch.stack(given).std(0)).min()) > 0.01  # the classes do differ
    torch.testing.assert_close(
        some, torch.stack([given[0][0], expected[1], given[2][2], expected[3], given[1][4]])
    )  # fmt: skip


def test_without_classes_there_is_nothing_to_mix() -> None:
    torch.manual_seed(0)
    network = ClassMixture(CausalConvolution(8, 1, 0.0), Categorical()).build(SPACE.replace(classes=0)).eval()
    order = Order.raster(6)
    with torch.no_grad():
        alone = network.head(network.network(VALUES, order), torch.arange(6)).log_probs()
        torch.testing.assert_close(network(VALUES, order), alone)
        cache = network.start(5, order, None, VALUES, 4)
        torch.testing.assert_close(network.step(cache), alone[:, 4:5])


def test_a_mixture_refuses_sets_of_several_sites_and_densities() -> None:
    network = ClassMixture(CausalTransformer(8, 1), Categorical()).build(SPACE)
    with pytest.raises(ValueError, match="one site at a time"):
        network(VALUES, Order.single(6))
    real = Ensemble([(CausalTransformer(8, 1), GaussianMixture())]).build(Space((2, 3), 0, classes=3))
    with pytest.raises(ValueError, match="finite"):
        real(torch.randn(2, 6), Order.raster(6))


def test_members_are_pooled_by_the_normalised_geometric_mean() -> None:
    generator = built(Ensemble([member(), member(), member()]))
    network, head, sites = generator.network, generator.head, torch.arange(6)
    with torch.no_grad():
        each = [h(n(VALUES, Order.raster(6)), sites).log_probs() for n, h in network._members()]
        pooled = head(network(VALUES, Order.raster(6)), sites).log_probs()
        mean = torch.stack(each).exp().log().mean(0).exp()
        torch.testing.assert_close(pooled.exp(), mean / mean.sum(-1, keepdim=True))
        assert not torch.allclose(each[0], each[1])
        score = generator.log_prob(VALUES).sum()
        assert score > torch.stack([t.gather(-1, VALUES[..., None]).sum() for t in each]).mean()


def test_members_learn_as_if_alone() -> None:
    """The gradient of a member's weights in training is that of its own likelihood, over the number of members."""
    together = built(Ensemble([member(), member()])).train()
    condition = Condition(torch.tensor([0, 1, 2, 0, 1]))
    (-together.log_prob(VALUES, None, condition).mean()).backward()
    network, head = together.network._members()[0]
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    own = head(network(VALUES, Order.raster(6), condition), torch.arange(6)).log_prob(VALUES)
    (-own.mean()).backward()
    assert found
    for name, p in network.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(2 * found[name], p.grad, msg=name)


def test_an_ensemble_of_any_order_networks_stays_one() -> None:
    network = Ensemble([(MaskedConvolution(8, 1), Categorical()) for _ in range(2)])
    assert network.any_order and network.needs_mask
    assert not Ensemble([member(), (MaskedConvolution(8, 1), Categorical())]).any_order
    generator = built(network)
    known = torch.tensor([True, False, True, False, False, True]).expand(5, 6)
    with torch.no_grad():
        a = generator.observe(VALUES, known).log_probs()
        b = generator.observe(torch.where(known, VALUES, 0), known).log_probs()
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(a.exp().sum(-1), torch.ones(5, 6))


def test_windows_look_up_and_left_only() -> None:
    taps = causal_taps((3, 4), 1, 1, centre=True)
    assert taps[5].tolist() == [0, 1, 2, 4, 5]
    assert taps[4].tolist() == [12, 0, 1, 12, 4]  # nothing wraps around an edge
    assert taps[3].tolist() == [12, 12, 12, 2, 3]
    assert causal_taps((3, 4), 2, 2, centre=False)[10].tolist() == [0, 1, 2, 3, 12, 4, 5, 6, 7, 12, 8, 9]


def test_a_deep_network_sees_every_site_before() -> None:
    generator = built(CausalConvolution(8, 1, 0.0), head=Categorical())
    with torch.no_grad():
        before = generator.network(VALUES, Order.raster(6))
        for site in range(6):
            other = VALUES.clone()
            other[:, site] = (other[:, site] + 1) % 4
            moved = (generator.network(other, Order.raster(6)) - before).abs().amax((0, 2)) > 1e-6
            assert moved.tolist() == [i > site for i in range(6)]


def test_other_orders_are_refused() -> None:
    with pytest.raises(ValueError, match="raster"):
        built(CausalConvolution(8, 1), "reverse", Categorical())


@pytest.mark.parametrize("known", [0, 1, 4])
@pytest.mark.parametrize("order", [Order.raster(6), Order.random(6, 2), Order.random(6, 3, batch=5)])
def test_step_by_step_is_one_pass(order: Order, known: int) -> None:
    generator = built(Ensemble([(ClassMixture(CausalTransformer(8, 1), Categorical()), LogLinear()) for _ in range(2)]))
    network, condition = generator.network, Condition(torch.tensor([0, -1, 2, -1, 1]))
    with torch.no_grad():
        whole = network(VALUES, order, condition)
        cache = network.start(5, order, condition, VALUES if known else None, known)
        last = None
        for k in range(known, 6):
            features = network.step(cache, last)
            last = take(VALUES, order.sets[k])
            torch.testing.assert_close(features, take(whole, order.sets[k]), atol=1e-5, rtol=1e-5)


def test_a_specialist_answers_in_its_order_only() -> None:
    own, other = (CausalConvolution(8, 1, 0.0), Categorical()), (MaskedConvolution(8, 1), Categorical())
    generator = built(Specialist(own, other))
    network, sites, reverse = generator.network, torch.arange(6), Order.reverse(6)
    known = torch.tensor([False, True, False, True, True, False]).expand(5, 6)
    with torch.no_grad():
        torch.testing.assert_close(
            network(VALUES, Order.raster(6)), own[1](own[0](VALUES, Order.raster(6)), sites).log_probs()
        )
        expected = other[1](other[0](VALUES, reverse), sites).log_probs()
        torch.testing.assert_close(network(VALUES, reverse), expected)
        seen = other[1](other[0].observe(VALUES, known), sites).log_probs()
        torch.testing.assert_close(network.observe(VALUES, known), seen)
        cache, last = network.start(5, reverse), None
        for site in reversed(range(6)):
            torch.testing.assert_close(network.step(cache, last), expected[:, site : site + 1])
            last = VALUES[:, site : site + 1]
    assert generator.any_order


def test_joint_objectives_teach_both_parts() -> None:
    generator = built(
        Specialist((CausalConvolution(8, 1, 0.0), Categorical()), (MaskedConvolution(8, 1), Categorical()))
    )
    both = Jointly(InOrder(), MaskedLikelihood(withhold=1.0))
    condition = Condition(torch.tensor([0, 1, 2, 0, 1]))
    loss = both.loss(generator, VALUES, condition, Noise.of(0, 5), 0.5)
    noise = Noise.of(0, 5)
    first = InOrder().loss(generator, VALUES, condition, noise, 0.5)
    torch.testing.assert_close(first, -generator.log_prob(VALUES, None, condition).mean())
    second = MaskedLikelihood().loss(generator, VALUES, Condition(torch.full((5,), -1)), noise, 0.5)
    torch.testing.assert_close(loss, (first + second) / 2)
    loss.backward()
    for part in (generator.network.raster, generator.network.other):
        assert any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in part.parameters())
