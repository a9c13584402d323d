"""A diffusion model at every site: densities of continuous tokens without a formula for them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ancestral.heads.base import Density, Distribution, Head
from ancestral.heads.denoiser import Denoiser
from ancestral.noise import Noise
from ancestral.space import Space


def cosine_schedule(steps: int) -> Tensor:
    """Share of the signal's variance left after every step: float64 ``[steps]``.

    ``cos^2`` of Nichol and Dhariwal (2021, arXiv:2102.09672), no step taking away more than 99.9 %.
    """
    at = (torch.arange(steps + 1, dtype=torch.float64) / steps + 0.008) / 1.008
    share = torch.cos(at * math.pi / 2).square()
    return (1 - (1 - share[1:] / share[:-1]).clamp(max=0.999)).cumprod(0)


LEAST_SIGNAL = 1e-3
"""Share of the signal's variance at which samples start, unless told otherwise."""


def spread_times(steps: int, passes: int) -> list[int]:
    """``passes`` of ``steps`` times, evenly spread from the first to the last."""
    if not 1 <= passes <= steps:
        raise ValueError(f"passes={passes} must be from 1 to {steps}")
    stride = (steps - 1) / (passes - 1) if passes > 1 else 1.0
    return [round(k * stride) for k in range(passes)]


class Chain(nn.Module):
    """The Markov chain from data to noise, at some of the times of the full one.

    Args:
        alphas: share of the signal left at every time of the full chain, float64 ``[T]``.
        times: the times that are kept, ascending; by default all.
    """

    def __init__(self, alphas: Tensor, times: list[int] | None = None):
        super().__init__()
        kept = torch.arange(len(alphas)) if times is None else torch.tensor(times)
        left = alphas[kept]
        before = torch.cat([left.new_ones(1), left[:-1]])
        beta = 1 - left / before
        variance = beta * (1 - before) / (1 - left)
        # The last step back has no variance; the authors' tables repeat the one before.
        variance = torch.cat([variance[1:2] if len(left) > 1 else beta[:1], variance[1:]])
        tables = {
            "left": left,
            "log_small": variance.log(),
            "log_large": beta.log(),
            "of_data": beta * before.sqrt() / (1 - left),
            "of_noisy": (1 - before) * (left / before).sqrt() / (1 - left),
        }
        self.names = tuple(tables)
        self.table: Tensor
        self.times: Tensor
        self.register_buffer("table", torch.stack(list(tables.values())), persistent=False)
        self.register_buffer("times", kept, persistent=False)

    def __len__(self) -> int:
        return len(self.times)

    def at(self, name: str, step: Tensor, like: Tensor) -> Tensor:
        """A number of the chain at every step int64 ``[...]``: ``[..., 1]``, of the dtype of ``like``."""
        return self.table[self.names.index(name)][step].to(like.dtype)[..., None]

    def noisy(self, data: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """Data ``[..., C]`` after ``step``, with standard normal ``noise``."""
        left = self.table[0][step][..., None]
        return left.sqrt().to(data.dtype) * data + (1 - left).sqrt().to(data.dtype) * noise

    def back(self, data: Tensor, noisy: Tensor, step: Tensor) -> Tensor:
        """Mean of the value one step back, given the data."""
        return self.at("of_data", step, data) * data + self.at("of_noisy", step, data) * noisy

    def predict(self, output: Tensor, noisy: Tensor, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and log-variance of the value one step back, and the data, all ``[..., C]``.

        Args:
            output: ``[..., 2 C]``: the noise, and where in its range the log-variance is, from -1 to 1 (Nichol and
                Dhariwal 2021, arXiv:2102.09672).
            noisy: the value at ``step``.
            step: int64 ``[...]``.
        """
        noise, where = output.chunk(2, -1)
        left = self.table[0][step][..., None]
        data = (1 / left).sqrt().to(noisy.dtype) * noisy - (1 / left - 1).sqrt().to(noisy.dtype) * noise
        share = (where + 1) / 2
        log_variance = share * self.at("log_large", step, share) + (1 - share) * self.at("log_small", step, share)
        return self.back(data, noisy, step), log_variance, data


def divergence(mean: Tensor, log_variance: Tensor, other: Tensor, other_log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence between normals, nats, elementwise."""
    ratio = (log_variance - other_log_variance).exp()
    return 0.5 * (other_log_variance - log_variance + ratio - 1 + (mean - other).square() * (-other_log_variance).exp())


def _binned(values: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-probability of a bin of 2/255 around values, under a normal whose cdf is approximated by a tanh."""

    def cdf(x: Tensor) -> Tensor:
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    scale = (-log_std).exp()
    upper, lower = cdf(scale * (values - mean + 1 / 255)), cdf(scale * (values - mean - 1 / 255))
    middle = (upper - lower).clamp(min=1e-12).log()
    ends = torch.where(values > 0.999, (1 - lower).clamp(min=1e-12).log(), middle)
    return torch.where(values < -0.999, upper.clamp(min=1e-12).log(), ends)


class DiffusionDensity(Density):
    """Values at sites by denoising; see :class:`DiffusionHead`.

    Args:
        head: its chains and network.
        features: ``[B, S, D]``.
        base: features of the unguided branch and the scale.
        weights: of the denoising network, by name; the head's unless given.
    """

    def __init__(
        self,
        head: DiffusionHead,
        features: Tensor,
        base: tuple[Tensor, float] | None = None,
        weights: dict[str, Tensor] | None = None,
    ):
        self.head, self.features, self.base, self.weights = head, features, base, weights

    def net(self, noisy: Tensor, time: Tensor, features: Tensor) -> Tensor:
        """The denoising network, with the weights of this density."""
        if self.weights is None:
            return self.head.net(noisy, time, features)
        return functional_call(self.head.net, self.weights, (noisy, time, features))

    def guided(self, other: Distribution, scale: float) -> DiffusionDensity:
        """The predicted noise is pushed away from the other's; variances stay."""
        assert isinstance(other, DiffusionDensity)
        return DiffusionDensity(self.head, self.features, (other.features, scale))

    def precise(self) -> DiffusionDensity:
        """The same in double precision."""
        base = None if self.base is None else (self.base[0].double(), self.base[1])
        weights = {name: weight.double() for name, weight in self.head.net.named_parameters()}
        return DiffusionDensity(self.head, self.features.double(), base, weights)

    def output(self, noisy: Tensor, step: Tensor, chain: Chain) -> Tensor:
        """The network's output ``[B, S, 2 C]`` for values ``[B, S, C]`` at ``step`` ``[B, S]``."""
        time = chain.times[step]
        found = self.net(noisy, time, self.features)
        if self.base is None:
            return found
        c = noisy.shape[-1]
        other = self.net(noisy, time, self.base[0])[..., :c]
        return torch.cat([found[..., :c] + self.base[1] * (found[..., :c] - other), found[..., c:]], -1)

    def sample(self, noise: Noise, temperature: float = 1.0) -> Tensor:
        b, s, _ = self.features.shape
        chain, c = self.head.short, self.head.channels
        x = noise.normal(s, c).to(self.features.dtype)
        for k in reversed(range(len(chain))):
            step = torch.full((b, s), k, device=x.device)
            mean, log_variance, _ = chain.predict(self.output(x, step, chain), x, step)
            x = mean
            if k:  # the last step adds no noise
                x = x + temperature * (0.5 * log_variance).exp() * noise.normal(s, c).to(x.dtype)
        return x.reshape(b, s, *self.head.event)

    def log_prob(self, values: Tensor) -> Tensor:
        """Variational lower bound on the log-density of the short chain, nats ``[B, S]``.

        The expectation over noise is estimated from a few stratified draws per step, fixed and the same for all sites
        and items: the bound holds up to the error of that estimate. Large terms that nearly cancel are summed, so that
        the denoising network runs in double precision: an item's score is the same in any batch.
        """
        if self.features.dtype != torch.float64:
            return self.precise().log_prob(values).to(self.features.dtype)
        chain, c = self.head.short, self.head.channels
        x = values.reshape(*self.features.shape[:2], c).double()
        noise = Noise.of(0x0D1FF, 1, device=x.device)
        last = torch.full(x.shape[:2], len(chain) - 1, device=x.device)
        left = chain.at("left", last, x)
        total = -divergence(left.sqrt() * x, (1 - left).log(), torch.zeros_like(x), torch.zeros_like(left))
        for k in range(len(chain)):
            step = torch.full(x.shape[:2], k, device=x.device)
            for drawn in self._stratified(noise).to(x.dtype):
                total = total + self._gain(x, step, drawn) / self.head.draws
        return total.sum(-1)

    def _stratified(self, noise: Noise) -> Tensor:
        """Normal numbers float64 ``[draws, C]`` of which every channel has one in each of as many equal shares."""
        shape = (self.head.draws, self.head.channels)
        share = torch.argsort(noise.uniform(*shape)[0], 0) + noise.uniform(*shape)[0]
        return torch.special.ndtri(share / self.head.draws)

    def _gain(self, x: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """The bound's term of one step, the same for all sites, for data ``[B, S, C]``: nats per channel."""
        chain = self.head.short
        noisy = chain.noisy(x, step, noise)
        mean, log_variance, _ = chain.predict(self.output(noisy, step, chain), noisy, step)
        if not bool(step.any()):
            return -0.5 * ((x - mean).square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi))
        return -divergence(chain.back(x, noisy, step), chain.at("log_small", step, x), mean, log_variance)

    def terms(self, values: Tensor, step: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """What is learned at one time of the full chain, means over channels, ``[B, S]`` each.

        Args:
            values: ``[B, S, C]``.
            step: int64 ``[B, S]``.
            noise: standard normal, like the values.

        Returns:
            squared error of the predicted noise; the variances' part of the variational bound, in bits, in which the
            mean is held fixed (at the first step: bits of a bin of 2/255).
        """
        chain = self.head.full
        noisy = chain.noisy(values, step, noise)
        output = self.output(noisy, step, chain)
        c = values.shape[-1]
        error = (noise - output[..., :c]).square().mean(-1)
        fixed = torch.cat([output[..., :c].detach(), output[..., c:]], -1)
        mean, log_variance, _ = chain.predict(fixed, noisy, step)
        small = chain.at("log_small", step, values)
        apart = divergence(chain.back(values, noisy, step), small, mean, log_variance)
        bound = torch.where(step[..., None] == 0, -_binned(values, mean, 0.5 * log_variance), apart)
        return error, bound.mean(-1) / math.log(2)

    def loss(self, values: Tensor, noise: Noise) -> Tensor:
        """Surrogate loss, summed over channels, ``[B, S]``: a few random times for every site."""
        b, s, _ = self.features.shape
        x, c = values.reshape(b, s, -1), self.head.channels
        total = x.new_zeros(b, s)
        for _ in range(self.head.repeats):
            step = (noise.uniform(s) * len(self.head.full)).long()
            error, bound = self.terms(x, step, noise.normal(s, c).to(x.dtype))
            total = total + error + bound
        return total * (c / self.head.repeats)


class DiffusionHead(Head):
    """Diffusion loss for continuous tokens (MAR: Li et al. 2024, arXiv:2406.11838).

    ``log_prob`` is a **lower bound** on a density (of the chain that samples are drawn by, whose last step's noise
    samples leave out). Training minimises the squared error of the predicted noise, which is no bound: its value is
    not in nats.

    Args:
        width, depth: of the denoising network.
        passes: steps that samples and scores take.
        steps: of the chain that is learned.
        repeats: times drawn per site in training, for one pass of the big network.
        draws: of the noise at every step of a score.
        times: the steps that samples take; by default evenly spread over those that leave at least 0.1 % of the
            signal's variance. (One step back from less multiplies any error by up to 10,000.)
    """

    exact = False
    finite = False
    kind = "lower_bound"

    def __init__(
        self,
        width: int = 256,
        depth: int = 3,
        passes: int = 50,
        steps: int = 1000,
        repeats: int = 4,
        draws: int = 4,
        times: list[int] | None = None,
    ):
        super().__init__()
        self.width, self.depth, self.repeats, self.draws = width, depth, repeats, draws
        alphas = cosine_schedule(steps)
        self.full = Chain(alphas)
        noisy = int((alphas >= LEAST_SIGNAL).sum())
        self.short = Chain(alphas, times or spread_times(noisy, min(passes, noisy)))

    def build(self, space: Space, width: int) -> DiffusionHead:
        if space.discrete:
            raise ValueError("a diffusion head needs real values; use Categorical for categories")
        self.event, self.channels = space.event, math.prod(space.event)
        self.net = Denoiser(self.channels, 2 * self.channels, width, self.width, self.depth)
        return self

    def forward(self, features: Tensor, sites: Tensor) -> DiffusionDensity:
        return DiffusionDensity(self, features)
