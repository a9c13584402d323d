"""Heads: probabilities sum to one, densities integrate to one, samples follow them, guidance is its formula."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral.errors import DataError
from ancestral.generator import Generator
from ancestral.heads import Categorical, Finite, GaussianMixture, LogisticMixture, Nested
from ancestral.heads.gaussian import MixtureDensity
from ancestral.networks import CausalTransformer
from ancestral.noise import Noise
from ancestral.space import Space

SITES = torch.arange(4)


def features(batch: int = 3, width: int = 8) -> torch.Tensor:
    return torch.randn(batch, 4, width, generator=torch.Generator().manual_seed(0))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(1, 4), st.floats(-40, 40), st.floats(-12, 6))
def test_logistic_bins_sum_to_one_for_extreme_parameters(k: int, m: int, mean: float, scale: float) -> None:
    head = LogisticMixture(m).build(Space((2, 2), k), 8)
    with torch.no_grad():
        head.project.weight.zero_()
        head.project.bias.view(3, m)[1] = mean
        head.project.bias.view(3, m)[2] = scale
    x = features().requires_grad_()
    logits = head(x, SITES).logits
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(3, 4), atol=1e-5, rtol=0)
    head(x, SITES).log_prob(torch.zeros(3, 4, dtype=torch.long)).sum().backward()
    assert torch.isfinite(head.project.bias.grad).all()


@pytest.mark.parametrize("mean", [-1e6, -30.0, 0.3, 30.0, 1e6])
@pytest.mark.parametrize("scale", [-100.0, -7.0, 0.0, 20.0, 100.0])
@pytest.mark.parametrize("k", [2, 256, 65_536])
def test_logistic_mixture_survives_any_parameters(k: int, scale: float, mean: float) -> None:
    head = LogisticMixture(2).build(Space((2, 2), k), 8)
    with torch.no_grad():
        head.project.weight.zero_()
        head.project.bias.view(3, 2)[1] = mean
        head.project.bias.view(3, 2)[2] = scale
    every = head(features(1), SITES).log_probs()
    assert torch.isfinite(every).all()
    torch.testing.assert_close(every.double().exp().sum(-1), torch.ones(1, 4).double(), atol=1e-5, rtol=0)
    for level in (0, k // 2, k - 1):
        head.zero_grad()
        head(features(1), SITES).log_prob(torch.full((1, 4), level)).sum().backward()
        assert torch.isfinite(head.project.bias.grad).all() and torch.isfinite(head.project.weight.grad).all()


@pytest.mark.parametrize("k", [2, 3, 17, 256])
def test_logistic_bins_are_differences_of_sigmoids(k: int) -> None:
    """PixelCNN++ (arXiv:1701.05517, eq. 2), in float64 and by plain subtraction."""
    torch.manual_seed(0)
    head = LogisticMixture(3).build(Space((2, 2), k), 8)
    found = head(features(), SITES).log_probs().exp()
    weight, mean, scale = head.project(features()).double().chunk(3, -1)
    expected = torch.zeros(3, 4, k, dtype=torch.float64)
    for level in range(k):
        centre, half = 2 * level / (k - 1) - 1, 1 / (k - 1)
        upper = torch.sigmoid((centre + half - mean) / scale.exp()) if level < k - 1 else torch.ones_like(mean)
        lower = torch.sigmoid((centre - half - mean) / scale.exp()) if level > 0 else torch.zeros_like(mean)
        expected[..., level] = (torch.softmax(weight, -1) * (upper - lower)).sum(-1)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)


def test_logistic_mixture_of_a_narrow_component_names_its_level() -> None:
    head = LogisticMixture(1).build(Space((2, 2), 11), 8)
    with torch.no_grad():
        head.project.weight.zero_()
        head.project.bias.copy_(torch.tensor([0.0, 2 * 7 / 10 - 1, -6.0]))
    assert (head(features(), SITES).logits.argmax(-1) == 7).all()


def test_ragged_categories_have_no_mass_beyond_their_size() -> None:
    sizes = (2, 5, 1, 3)
    head = Categorical().build(Space((4,), sizes), 8)
    shared = head(features(), SITES).log_probs().exp()
    for site, size in enumerate(sizes):
        assert (shared[:, site, size:] == 0).all()
        torch.testing.assert_close(shared[:, site].sum(-1), torch.ones(3))
    mixed = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]])
    own = head(features(), mixed).log_probs()
    for item, row in enumerate(mixed.tolist()):
        expected = head(features()[item : item + 1], torch.tensor(row)).log_probs()[0]
        torch.testing.assert_close(own[item], expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.floats(0.1, 30), st.integers(0, 2**31))
def test_the_cumulative_distribution_is_what_values_are_drawn_and_coded_by(k: int, spread: float, seed: int) -> None:
    logits = spread * torch.randn(2, 3, k, generator=torch.Generator().manual_seed(seed))
    leaf = Finite(logits)
    edges = leaf.cdf()
    assert edges.dtype == torch.float64 and edges.shape == (2, 3, k)
    assert (edges.diff(dim=-1) >= 0).all() and torch.allclose(edges[..., -1], torch.ones(2, 3, dtype=torch.float64))
    values = torch.randint(0, k, (2, 3), generator=torch.Generator().manual_seed(seed))
    below = torch.where(values > 0, edges.gather(-1, (values[..., None] - 1).clamp(min=0))[..., 0], 0.0)
    mass = edges.gather(-1, values[..., None])[..., 0] - below
    assert torch.allclose(mass, leaf.log_prob(values).double().exp(), atol=1e-6)
    drawn = leaf.draw(Noise(torch.arange(2)))
    again = (Noise(torch.arange(2)).uniform(3)[..., None].double() * edges[..., -1:] >= edges).sum(-1)
    assert torch.equal(drawn, again)


def test_guidance_is_its_formula() -> None:
    a, b = Finite(features(width=6)), Finite(features(width=6).flip(0))
    found = a.guided(b, 1.5).log_probs()
    expected = torch.log_softmax(2.5 * a.log_probs() - 1.5 * b.log_probs(), -1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("channels", [1, 2])
def test_gaussian_mixture_integrates_to_one_and_samples_follow_it(channels: int) -> None:
    torch.manual_seed(1)
    head = GaussianMixture(3).build(Space((1,), 0, event=(channels,)), 8)
    x = torch.randn(1, 1, 8)
    with torch.no_grad():
        density = head(x, torch.zeros(1, dtype=torch.long))
        line = torch.linspace(-12, 12, 801)
        grid = torch.stack(torch.meshgrid(*[line] * channels, indexing="ij"), -1).reshape(-1, 1, channels)
        wide = MixtureDensity(density.log_weight, density.mean, density.log_std, (channels,))
        mass = wide.log_prob(grid).double().exp()
        cell = (24 / 800) ** channels
        assert float(mass.sum()) * cell == pytest.approx(1, abs=1e-4)
        mean = (mass * grid[:, 0].double()).sum(0) * cell if channels == 1 else None
        many = head(x.expand(20_000, 1, 8), torch.zeros(1, dtype=torch.long)).sample(Noise.of(0, 20_000))
        weights = density.log_weight[0, 0].exp()
        expected = (weights[:, None] * density.mean[0, 0]).sum(0)
        assert torch.allclose(many.mean(0)[0], expected, atol=0.05)
        if mean is not None:
            assert float(mean[0]) == pytest.approx(float(expected[0]), abs=1e-3)


@pytest.mark.parametrize("event", [(), (2,), (2, 2)])
def test_gaussian_samples_have_the_moments_of_the_density(event: tuple[int, ...]) -> None:
    """Mean and covariance in closed form; temperature sharpens the components' weights and scales their spread."""
    torch.manual_seed(2)
    n = 40_000
    head = GaussianMixture(3).build(Space((1,), 0, event=event), 8)
    with torch.no_grad():
        density = head(torch.randn(1, 1, 8).expand(n, 1, 8), torch.zeros(1, dtype=torch.long))
        weight, mean = density.log_weight[0, 0].exp().double(), density.mean[0, 0].double()
        var = (2 * density.log_std[0, 0]).exp().double()
        plain = weight
        for temperature in (1.0, 0.5):
            drawn = density.sample(Noise.of(1, n), temperature)
            assert drawn.shape == (n, 1, *event)
            x = drawn.reshape(n, -1).double()
            weight = plain ** (1 / temperature) / (plain ** (1 / temperature)).sum()
            centre = (weight[:, None] * mean).sum(0)
            between = torch.einsum("m,mi,mj->ij", weight, mean - centre, mean - centre)
            covariance = between + torch.diag((weight[:, None] * var).sum(0)) * temperature**2
            spread = covariance.diagonal().sqrt()
            # Five standard errors: of a mean 5 / sqrt(n) spreads, of a covariance about twice as many.
            assert ((x.mean(0) - centre).abs() < 5 * spread / n**0.5).all()
            assert ((x.T.cov().reshape(covariance.shape) - covariance).abs() < 10 * spread.outer(spread) / n**0.5).all()


def test_temperature_zero_takes_the_mean_of_the_heaviest_component() -> None:
    torch.manual_seed(0)
    head = GaussianMixture(4).build(Space((3,), 0, event=(2,)), 8)
    with torch.no_grad():
        density = head(4 * torch.randn(5, 3, 8), torch.arange(3))
        drawn = [density.sample(Noise.of(seed, 5), 0.0) for seed in range(3)]
    heaviest = density.log_weight.argmax(-1)
    assert len(heaviest.unique()) > 1
    expected = density.mean.gather(2, heaviest[..., None, None].expand(5, 3, 1, 2))[:, :, 0]
    assert all(torch.equal(each, expected) for each in drawn)


def test_nested_head_normalises() -> None:
    torch.manual_seed(0)
    space = Space((2,), 3, event=(2,))
    head = Nested(Generator(CausalTransformer(8, 1), Categorical())).build(space, 8)
    every = torch.tensor(list(itertools.product(range(3), repeat=2)))
    with torch.no_grad():
        x = features(1)[:, :2]
        total = sum(head(x, torch.arange(2)).log_prob(v.expand(1, 2, 2)).exp() for v in every)
    torch.testing.assert_close(total, torch.ones(1, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("head", "space"),
    [
        (Categorical(), Space((2,), 3, event=(2,))),
        (Categorical(), Space((2,), 0, event=(2,))),
        (LogisticMixture(), Space((2,), (2, 3))),
        (LogisticMixture(), Space((2,), 1)),
        (GaussianMixture(), Space((2,), 3)),
        (Nested(Generator(CausalTransformer(8, 1), Categorical())), Space((2,), 3)),
    ],
)
def test_heads_refuse_values_they_cannot_model(head: Categorical, space: Space) -> None:
    with pytest.raises((ValueError, DataError), match=r"needs|in turn"):
        head.build(space, 8)
