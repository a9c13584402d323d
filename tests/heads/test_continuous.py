"""Heads for continuous tokens: what they draw, and what their scores mean."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ancestral.heads import DiffusionHead, FlowHead
from ancestral.heads.base import Density, Head
from ancestral.heads.diffusion import Chain, cosine_schedule, divergence, spread_times
from ancestral.noise import Noise
from ancestral.space import Space


class Told(torch.nn.Module):
    """The best denoiser there is for normal values of mean ``2 * feature`` and spread 0.5: it can be written down."""

    def __init__(self, kind: str, head: Head):
        super().__init__()
        self.kind, self.heads = kind, (head,)  # not a part of it: it is a part of the head

    def forward(self, x: Tensor, time: Tensor, features: Tensor) -> Tensor:
        mean, spread = 2 * features[..., :1], 0.5
        if self.kind == "flow":  # E[data - noise | t data + (1 - t) noise = x]
            t = (time / 1000)[..., None]
            total = (t * spread) ** 2 + (1 - t) ** 2
            return mean + (t * spread**2 - (1 - t)) / total * (x - t * mean)
        chain: Any = self.heads[0].short
        step = torch.searchsorted(chain.times, time)
        left = chain.table[0][step][..., None].float()
        total = left * spread**2 + 1 - left
        noise = (1 - left).sqrt() / total * (x - left.sqrt() * mean)
        # One step back is normal too: the chain's own variance, and that of what the data may be.
        data = spread**2 * (1 - left) / total
        variance = chain.at("of_data", step, data).square() * data + chain.at("log_small", step, data).exp() * (
            step[..., None] > 0
        )
        low, high = chain.at("log_small", step, data), chain.at("log_large", step, data)
        return torch.cat([noise, 2 * (variance.log() - low) / (high - low) - 1], -1)


def exact(kind: str, passes: int = 100) -> Head:
    head: Head = FlowHead(8, 1, passes) if kind == "flow" else DiffusionHead(8, 1, passes)
    head.build(Space((3,), 0, event=(1,)), 1)
    head.net = Told(kind, head)
    return head


FEATURES = torch.tensor([[[-1.0], [0.0], [1.0]]])


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_samples_have_the_right_mean_and_spread(kind: str) -> None:
    head = exact(kind)
    drawn = head(FEATURES.expand(4000, 3, 1), torch.arange(3)).sample(Noise.of(0, 4000))  # type: ignore[attr-defined]
    assert drawn.shape == (4000, 3, 1)
    for site, mean in enumerate((-2.0, 0.0, 2.0)):
        assert float(drawn[:, site].mean()) == pytest.approx(mean, abs=0.04)
        assert float(drawn[:, site].std()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_scores_are_what_they_say(kind: str) -> None:
    """Quadrature in one dimension: the best network's scores have mass 1; for any other a bound has less."""
    head = exact(kind)
    grid = torch.linspace(-4, 4, 321)
    features = FEATURES[:, 1:2].expand(321, 1, 1)
    scores = head(features, torch.arange(1)).log_prob(grid.reshape(-1, 1, 1))[:, 0]
    width = grid[1] - grid[0]
    truth = -0.5 * (grid / 0.5) ** 2 - math.log(0.5 * math.sqrt(2 * math.pi))
    middle = grid.abs() < 1
    gap = float((truth - scores)[middle].abs().max())
    # A bound whose expectation is estimated from a few draws is right to a tenth of a nat or so.
    assert head.kind == ("estimate" if kind == "flow" else "lower_bound")
    assert gap < (0.02 if kind == "flow" else 0.25)
    assert float(scores.exp().sum() * width) == pytest.approx(1, abs=0.01 if kind == "flow" else 0.1)
    best = head.net.forward  # type: ignore[union-attr]
    head.net.forward = lambda x, time, told: best(x, time, told) * 0.5  # type: ignore[union-attr, assignment, operator]
    worse = head(features, torch.arange(1)).log_prob(grid.reshape(-1, 1, 1))[:, 0]
    if kind == "diffusion":
        assert float(worse.exp().sum() * width) < 0.95
        assert float((truth.exp() * (truth - worse)).sum() * width) > 0.05


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_guidance_at_scale_zero_is_none_and_pushes_away_otherwise(kind: str) -> None:
    head = exact(kind, 20)
    plain = head(FEATURES, torch.arange(3))
    other = head(torch.zeros_like(FEATURES), torch.arange(3))
    drawn = [plain.guided(other, s).sample(Noise.of(1, 1)) for s in (0.0, 1.0)]  # type: ignore[attr-defined]
    assert torch.allclose(drawn[0], plain.sample(Noise.of(1, 1)), atol=1e-5)  # type: ignore[attr-defined]
    moved = (drawn[1] - drawn[0])[0, :, 0]
    assert moved[0] < -0.3 and moved[2] > 0.3 and abs(float(moved[1])) < 1e-5


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_learns_two_clusters(kind: str) -> None:
    """A density that is no Gaussian, told by the features which of two clusters it is near."""
    torch.manual_seed(0)
    head: Head = FlowHead(32, 2, 20, repeats=1) if kind == "flow" else DiffusionHead(32, 2, 20, repeats=1)
    head.build(Space((1,), 0, event=(2,)), 1).train()
    optimiser = torch.optim.Adam(head.parameters(), 3e-3)
    for step in range(400):
        noise = Noise.of(step, 256)
        side = torch.where(noise.uniform(1) < 0.5, -1.0, 1.0).float()
        told = torch.where(noise.uniform(1) < 0.5, -1.0, 1.0).float()
        values = torch.stack([side, told], -1) + 0.1 * noise.normal(1, 2).float()
        loss = head(told[..., None], torch.zeros(1, dtype=torch.int64)).loss(values, noise).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    head.eval()
    with torch.no_grad():
        density = head(torch.ones(500, 1, 1), torch.zeros(1, dtype=torch.int64))
        assert isinstance(density, Density)
        drawn = density.sample(Noise.of(9, 500))[:, 0]
        near = (drawn[:, 0].abs() - 1).abs() < 0.45
        assert float(near.float().mean()) > 0.85
        assert 0.3 < float((drawn[:, 0] > 0).float().mean()) < 0.7
        assert float(((drawn[:, 1] - 1).abs() < 0.45).float().mean()) > 0.85
        few = head(torch.ones(2, 1, 1), torch.zeros(1, dtype=torch.int64))
        near, far = few.log_prob(torch.tensor([[[1.0, 1.0]], [[0.0, -1.0]]]))[:, 0]
        assert near > far + 1


def test_chain_steps_back_to_the_data() -> None:
    chain = Chain(cosine_schedule(50))
    data, noise = torch.randn(50, 3), torch.randn(50, 3)
    step = torch.arange(50)
    noisy = chain.noisy(data, step, noise)
    output = torch.cat([noise, torch.ones(50, 3)], -1)
    mean, log_variance, found = chain.predict(output, noisy, step)
    assert torch.allclose(found[:45], data[:45], atol=1e-2)
    assert torch.allclose(mean[0], data[0], atol=1e-5), "one step back from the first is the data"
    assert torch.allclose(log_variance, chain.at("log_large", step, log_variance).expand(50, 3))
    same = divergence(mean, log_variance, mean, log_variance)
    assert float(same.abs().max()) == 0


def test_times() -> None:
    assert spread_times(1000, 1) == [0]
    assert spread_times(10, 10) == list(range(10))
    assert spread_times(1000, 3) == [0, 500, 999] or spread_times(1000, 3)[1] in (499, 500)
    with pytest.raises(ValueError, match="from 1 to 5"):
        spread_times(5, 6)
    for head in (DiffusionHead(8, 1), FlowHead(8, 1)):
        with pytest.raises(ValueError, match="real values"):
            head.build(Space((2,), 3), 4)


COVARIANCE = torch.tensor([[1.0, 0.8], [0.8, 1.0]])


class Together(torch.nn.Module):
    """The best velocity there is for two sites of correlated normal values: it can be written down."""

    def forward(self, x: Tensor, time: Tensor, features: Tensor, mask: Tensor | None = None) -> Tensor:
        t = (time / 1000)[:, 0, None, None]
        one = torch.eye(2)
        matrix = (t * COVARIANCE - (1 - t) * one) @ torch.linalg.inv(t**2 * COVARIANCE + (1 - t) ** 2 * one)
        return matrix @ x


def joint(passes: int = 40, probes: int = 1) -> Head:
    head = FlowHead(8, 1, passes, sees="set", heads=2, probes=probes).build(Space((2,), 0, event=(1,)), 1)
    head.net = Together()
    return head


def test_a_set_is_drawn_jointly() -> None:
    drawn = joint()(torch.zeros(4000, 2, 1), torch.arange(2)).sample(Noise.of(0, 4000))[..., 0]  # type: ignore[attr-defined]
    assert float((drawn.T.cov() - COVARIANCE).abs().max()) < 0.06


def test_scores_of_sets() -> None:
    values = torch.tensor([[[0.5], [-0.2]], [[1.0], [1.0]], [[-1.5], [0.3]]])
    truth = torch.distributions.MultivariateNormal(torch.zeros(2), COVARIANCE).log_prob(values[..., 0])
    # The estimated trace is right on average over its probes: with many the score is the density's logarithm.
    scores = joint(50, 400)(torch.zeros(3, 2, 1), torch.arange(2)).log_prob(values).sum(1)
    assert float((scores - truth).abs().max()) < 0.1


def test_known_values_of_a_set_stay_and_the_others_suit_them() -> None:
    values = torch.full((3000, 2, 1), 2.0)
    known = torch.tensor([True, False]).expand(3000, 2)
    distribution = joint()(torch.zeros(3000, 2, 1), torch.arange(2)).pinned(known, values)
    drawn = distribution.sample(Noise.of(1, 3000))[..., 0]  # type: ignore[attr-defined]
    assert float((drawn[:, 0] - 2.0).abs().max()) < 1e-6
    assert 1.0 < float(drawn[:, 1].mean()) < 1.9  # the conditional mean is 1.6


def test_sets_of_one_pass_do_not_see_each_other() -> None:
    head = FlowHead(16, 2, 2, sees="set", heads=2).build(Space((4,), 0, event=(1,)), 3)
    assert isinstance(head, FlowHead)
    for weight in head.requires_grad_(False).parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(1))
    features, x, time = torch.randn(2, 4, 3), torch.randn(2, 4, 1), torch.full((2, 4), 0.3)
    sets = torch.tensor([0, 1, 1, 0])
    together = head.over(features, torch.arange(4), sets).velocity(x, time)
    for number in (0, 1):
        part = torch.nonzero(sets == number)[:, 0]
        alone = head.over(features[:, part], part).velocity(x[:, part], time[:, part])
        assert float((alone - together[:, part]).abs().max()) < 1e-5
    moved = x.clone()
    moved[:, 3] += 1.0
    change = head.over(features, torch.arange(4), sets).velocity(moved, time) - together
    assert float(change[:, 0].abs().min()) > 1e-6 and float(change[:, 1:3].abs().max()) == 0.0


def test_heads_that_ask_the_network_need_one_that_answers() -> None:
    from ancestral.generator import Generator
    from ancestral.networks import CausalTransformer

    with pytest.raises(ValueError, match="cannot be asked again"):
        Generator(CausalTransformer(8, 1), FlowHead(sees="network")).build(Space((4,), 0, event=(1,)))
    with pytest.raises(ValueError, match="asks its network"):
        FlowHead(sees="network").build(Space((4,), 0, event=(1,)), 8)(torch.zeros(1, 4, 8), torch.arange(4))
