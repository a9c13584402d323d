"""Quantisers of single vectors: learned codebooks, fixed lattices, and continuous latents."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.noise import Noise
from ancestral.space import Space
from ancestral.tokenizers.learned.parts import Quantised, Quantiser, flat, unflat


def kmeans(points: Tensor, k: int, seed: int, rounds: int = 10) -> Tensor:
    """Centres ``[k, C]`` of ``points`` ``[n, C]``: Lloyd's algorithm from random points.

    Empty clusters, and clusters beyond the number of points, start again at random points, a little moved.
    """
    chance = torch.Generator().manual_seed(seed)

    def some(count: int) -> Tensor:
        pick = torch.randint(len(points), (count,), generator=chance)
        return points[pick] + 1e-3 * points.std() * torch.randn(count, points.shape[1], generator=chance)

    centres = some(k)
    if len(points) >= k:
        centres = points[torch.randperm(len(points), generator=chance)[:k]].clone()
    for _ in range(rounds):
        near = nearest(points, centres)
        count = torch.bincount(near, minlength=k)
        centres = torch.zeros_like(centres).index_add_(0, near, points) / count.clamp(min=1)[:, None]
        empty = count == 0
        centres[empty] = some(int(empty.sum()))
    return centres


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Index of the closest row of ``codebook`` ``[K, C]`` for every vector ``[n, C]``: int64 ``[n]``."""
    # |v|^2 is the same for all codes.
    return (codebook.square().sum(1) - 2 * vectors @ codebook.T).argmin(1)


def _everywhere(x: Tensor) -> Tensor:
    """The sum of ``x`` over all processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(x)
    return x


def _first_process(x: Tensor) -> Tensor:
    """``x`` of the first process, on all of them."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast(x, 0)
    return x


def at_least_one(**counts: int) -> None:
    """Refuse counts of which there must be one.

    Raises:
        ValueError: one is smaller.
    """
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}={count} must be at least 1")


class Codebook(nn.Module):
    """K vectors that follow the means of what they stand for.

    Exponential moving averages (van den Oord et al. 2017, arXiv:1711.00937, app. A.1), k-means before the first
    step, and restarts: a code that stands for fewer than ``restart`` times the mean number of vectors is put where
    one of the batch's vectors is (Dhariwal et al. 2020, arXiv:2005.00341).

    Args:
        codes: K.
        width: C.
        normalise: vectors and codes are compared, and codes used, on the unit sphere.
        decay: of the averages.
        restart: share of the mean use below which a code is dead.
    """

    vectors: Tensor
    count: Tensor
    total: Tensor

    def __init__(self, codes: int, width: int, normalise: bool, decay: float, restart: float):
        super().__init__()
        at_least_one(codes=codes, width=width)
        self.codes, self.normalise, self.decay, self.restart = codes, normalise, decay, restart
        start = torch.randn(codes, width)
        self.register_buffer("vectors", F.normalize(start, dim=-1) if normalise else start)
        self.register_buffer("count", torch.ones(codes))
        self.register_buffer("total", self.vectors.clone())

    def place(self, vectors: Tensor) -> Tensor:
        """Vectors where they are compared: on the sphere, or where they are."""
        return F.normalize(vectors, dim=-1) if self.normalise else vectors

    def find(self, vectors: Tensor) -> Tensor:
        """Codes int64 ``[n]`` of vectors ``[n, C]``."""
        return nearest(self.place(vectors), self.vectors)

    @torch.no_grad()
    def start(self, vectors: Tensor, seed: int) -> None:
        """Begin at the k-means centres of ``vectors``."""
        placed = self.place(vectors.detach())
        centres = self.place(kmeans(placed, self.codes, seed))
        share = torch.bincount(nearest(placed, centres), minlength=self.codes).float() * (self.codes / len(placed))
        self._set(torch.ones(self.codes, dtype=torch.bool), centres, share.clamp(min=0.1))

    def _set(self, where: Tensor, vectors: Tensor, count: Tensor) -> None:
        self.vectors[where], self.count[where] = vectors, count
        self.total[where] = vectors * count[:, None]

    @torch.no_grad()
    def follow(self, vectors: Tensor, codes: Tensor, chance: torch.Generator | None) -> None:
        """Move towards the batch's ``vectors`` ``[n, C]``, which ``codes`` stand for."""
        placed = self.place(vectors.detach())
        count = _everywhere(torch.bincount(codes, minlength=self.codes).to(placed.dtype))
        total = _everywhere(torch.zeros_like(self.total).index_add_(0, codes, placed))
        # Counts are in units of the mean use, so that they mean the same for every batch size.
        scale = self.codes / count.sum()
        self.count.lerp_(count * scale, 1 - self.decay)
        self.total.lerp_(total * scale, 1 - self.decay)
        self.vectors.copy_(self.place(self.total / self.count.clamp(min=1e-5)[:, None]))
        dead = self.count < self.restart
        number = int(dead.sum())
        if number:
            pick = torch.randint(len(placed), (number,), generator=chance, device=placed.device)
            self._set(dead, _first_process(placed[pick].contiguous()), self.count.new_ones(number))


def _squared(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean()


class VQ(Quantiser):
    """The nearest of K learned vectors (van den Oord et al. 2017, arXiv:1711.00937); see :class:`Codebook`.

    Args:
        codes: K.
        width: C.
        normalise: on the unit sphere, which uses more of the codes (Yu et al. 2021, arXiv:2110.04627).
        decay, restart: of the codebook.
        commitment: weight of the encoder's distance from its codes.
    """

    def __init__(
        self,
        codes: int = 1024,
        width: int = 8,
        normalise: bool = True,
        decay: float = 0.97,
        restart: float = 0.03,
        commitment: float = 0.25,
    ):
        super().__init__()
        self.codes, self.width, self.commitment = codes, width, commitment
        self.book = Codebook(codes, width, normalise, decay, restart)

    def space(self, shape: tuple[int, ...]) -> Space:
        return Space(shape, self.codes)

    def initialise(self, latents: Tensor, seed: int) -> None:
        self.book.start(flat(latents), seed)

    def forward(self, latents: Tensor, noise: Noise, chance: Any = None) -> Quantised:
        vectors = self.book.place(flat(latents))
        codes = self.book.find(vectors)
        chosen = self.book.vectors[codes]
        if self.training:
            self.book.follow(vectors, codes, chance)
        commit = _squared(vectors, chosen)
        through = vectors + (chosen - vectors).detach()
        index = codes.reshape(len(latents), -1)
        return Quantised(unflat(through, latents), index, self.commitment * commit, commitment=commit)

    def encode(self, latents: Tensor) -> Tensor:
        return self.book.find(flat(latents)).reshape(len(latents), -1)

    def decode(self, codes: Tensor) -> Tensor:
        return self.book.vectors[codes].transpose(1, 2).reshape(len(codes), -1, *self.grid)


class FSQ(Quantiser):
    """Every channel rounded to a few levels (Mentzer et al. 2023, arXiv:2309.15505): nothing to collapse.

    Args:
        levels: of every channel; their product is the number of codes.
    """

    def __init__(self, levels: tuple[int, ...] = (8, 5, 5, 5)):
        super().__init__()
        if len(levels) == 0 or min(levels) < 2:
            raise ValueError(f"levels={levels} must give every channel at least two")
        self.width, self.codes = len(levels), math.prod(levels)
        self.levels: Tensor
        self.place: Tensor
        self.register_buffer("levels", torch.tensor(levels, dtype=torch.float32), persistent=False)
        sizes = torch.tensor((1, *levels[:-1]), dtype=torch.int64)
        self.register_buffer("place", sizes.cumprod(0), persistent=False)

    def space(self, shape: tuple[int, ...]) -> Space:
        return Space(shape, self.codes)

    def _round(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Levels int64 ``[n, C]``, and where they stand in [-1, 1], with the gradient of what was rounded."""
        # The sigmoid is stretched over half a level beyond the ends, so that all levels are equally wide.
        top = self.levels - 1
        soft = torch.sigmoid(2 * vectors) * (self.levels - 1e-3) - 0.5
        hard = soft.round().clamp(min=0).minimum(top)
        through = soft + (hard - soft).detach()
        return hard.long(), 2 * through / top - 1

    def forward(self, latents: Tensor, noise: Noise, chance: Any = None) -> Quantised:
        hard, values = self._round(flat(latents))
        codes = (hard * self.place).sum(-1).reshape(len(latents), -1)
        return Quantised(unflat(values, latents), codes, latents.new_zeros(()))

    def encode(self, latents: Tensor) -> Tensor:
        return (self._round(flat(latents))[0] * self.place).sum(-1).reshape(len(latents), -1)

    def decode(self, codes: Tensor) -> Tensor:
        digits = codes[..., None] // self.place % self.levels.long()
        values = 2 * digits / (self.levels - 1) - 1
        return values.transpose(1, 2).reshape(len(codes), -1, *self.grid)


class LFQ(Quantiser):
    """The signs of the channels (MAGVIT-v2: Yu et al. 2023, arXiv:2310.05737): 2^bits codes without a codebook.

    The entropy loss makes codes certain for an item and even over the batch. A soft code has independent bits, so
    that its entropy is the sum of theirs; the mean over the batch is taken over joint codes of up to 10 bits at a time.

    Args:
        bits: channels.
        entropy: weight of the entropy loss, in nats per bit.
        commitment: weight of the encoder's distance from its code.
        sharpness: of the soft signs that entropies are taken of.
    """

    def __init__(self, bits: int = 10, entropy: float = 0.1, commitment: float = 0.02, sharpness: float = 4.0):
        super().__init__()
        at_least_one(bits=bits)
        self.width, self.entropy, self.commitment, self.sharpness = bits, entropy, commitment, sharpness
        self.place: Tensor
        self.register_buffer("place", 2 ** torch.arange(bits), persistent=False)

    def space(self, shape: tuple[int, ...]) -> Space:
        return Space(shape, 2**self.width)

    def forward(self, latents: Tensor, noise: Noise, chance: Any = None) -> Quantised:
        vectors = flat(latents)
        signs = torch.where(vectors > 0, 1.0, -1.0)
        share = torch.sigmoid(self.sharpness * vectors)
        each = binary_entropy(share).mean()
        mean = share.new_zeros(())
        for part in share.split(10, -1):
            joint = part.new_ones(len(part), 1)
            for bit in part.split(1, -1):
                joint = torch.cat([joint * (1 - bit), joint * bit], -1)
            p = joint.mean(0)
            mean = mean - torch.xlogy(p, p).sum() / self.width
        commit = _squared(vectors, signs)
        loss = self.commitment * commit + self.entropy * (each - mean)
        through = vectors + (signs - vectors).detach()
        parts = {"commitment": commit, "entropy of an item": each, "entropy of the batch": mean}
        return Quantised(unflat(through, latents), self.encode(latents), loss, **parts)

    def encode(self, latents: Tensor) -> Tensor:
        return ((flat(latents) > 0) * self.place).sum(-1).reshape(len(latents), -1)

    def decode(self, codes: Tensor) -> Tensor:
        values = (codes[..., None] // self.place % 2) * 2.0 - 1.0
        return values.transpose(1, 2).reshape(len(codes), -1, *self.grid)


def binary_entropy(p: Tensor) -> Tensor:
    """Entropy in nats of coins with head probability ``p``, elementwise."""
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))


class KL(Quantiser):
    """No quantisation: Gaussian latents of a variational autoencoder (Kingma and Welling 2013, arXiv:1312.6114).

    Codes are the posterior means, scaled to unit spread over the training data.

    Args:
        width: C.
        weight: of the divergence from the standard normal, per latent scalar.
        fold: a site stands for ``fold x fold`` cells of the grid, its event for their channels.
    """

    scale: Tensor

    def __init__(self, width: int = 4, weight: float = 1e-3, fold: int = 1):
        super().__init__()
        at_least_one(width=width, fold=fold)
        self.width, self.weight, self.fold = width, weight, fold
        self.register_buffer("scale", torch.ones(()))

    @property
    def inputs(self) -> int:
        return 2 * self.width

    def space(self, shape: tuple[int, ...]) -> Space:
        if any(side % self.fold for side in shape):
            raise ValueError(f"fold={self.fold} does not divide the latents' {shape}")
        return Space(tuple(side // self.fold for side in shape), 0, event=(self.width * self.fold**2,))

    def posterior(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance, ``[B, C, H, W]`` each."""
        mean, log_variance = latents.chunk(2, 1)
        return mean, log_variance.clamp(-30, 20)

    def divergence(self, latents: Tensor) -> Tensor:
        """Kullback-Leibler divergence of the posterior from the standard normal, nats per item ``[B]``."""
        mean, log_variance = self.posterior(latents)
        return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)

    def forward(self, latents: Tensor, noise: Noise, chance: Any = None) -> Quantised:
        mean, log_variance = self.posterior(latents)
        drawn = mean
        if self.training:
            drawn = mean + (0.5 * log_variance).exp() * noise.normal(*mean.shape[1:]).to(mean.dtype)
        each = self.divergence(latents).mean() / mean[0].numel()
        return Quantised(drawn, self.encode(latents), self.weight * each, divergence=each)

    def encode(self, latents: Tensor) -> Tensor:
        return F.pixel_unshuffle(self.posterior(latents)[0], self.fold).flatten(2).transpose(1, 2) * self.scale

    def decode(self, codes: Tensor) -> Tensor:
        height, width = (side // self.fold for side in self.grid)
        return F.pixel_shuffle((codes / self.scale).transpose(1, 2).reshape(len(codes), -1, height, width), self.fold)

    def known(self, cells: Tensor) -> Tensor:
        return F.max_pool2d((~cells)[:, None].float(), self.fold).flatten(1) == 0

    @torch.no_grad()
    def finish(self, latents: Tensor) -> None:
        self.scale.copy_(1 / self.posterior(latents)[0].std().clamp(min=1e-4))


class Bins(Quantiser):
    """Continuous latents, quantised after training: every channel on its own (TokenBridge: Wang et al. 2025).

    Trained as :class:`KL`; afterwards every channel is cut into bins of equal probability under the normal
    distribution that has the channel's mean and spread, and a bin is decoded to its mean under that normal. The
    channels of a site are its event, to be drawn in turn by a nested head (arXiv:2503.16430).

    Args:
        width: C.
        bins: per channel.
        weight: of the divergence; see :class:`KL`.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, width: int = 4, bins: int = 16, weight: float = 1e-3):
        super().__init__()
        if bins < 2:
            raise ValueError(f"bins={bins} must be at least two")
        self.width, self.bins = width, bins
        self.latent = KL(width, weight)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        edges = torch.special.ndtri(torch.arange(1, bins, dtype=torch.float64) / bins)
        density = torch.exp(-0.5 * edges.square()) / math.sqrt(2 * math.pi)
        ends = F.pad(density, (1, 1))
        self.edges: Tensor
        self.centres: Tensor
        self.register_buffer("edges", edges.float(), persistent=False)
        self.register_buffer("centres", ((ends[:-1] - ends[1:]) * bins).float(), persistent=False)

    @property
    def inputs(self) -> int:
        return 2 * self.width

    def build(self, height: int, width: int) -> Bins:
        self.latent.build(height, width)
        super().build(height, width)
        return self

    def space(self, shape: tuple[int, ...]) -> Space:
        return Space(shape, self.bins, event=(self.width,), ordinal=True)

    def forward(self, latents: Tensor, noise: Noise, chance: Any = None) -> Quantised:
        found = self.latent(latents, noise, chance)
        return Quantised(found.latents, self.encode(latents), found.loss, **found.parts)

    def encode(self, latents: Tensor) -> Tensor:
        vectors = self.latent.posterior(latents)[0].flatten(2).transpose(1, 2)
        return torch.bucketize(((vectors - self.mean) / self.spread).contiguous(), self.edges)

    def decode(self, codes: Tensor) -> Tensor:
        vectors = self.centres[codes] * self.spread + self.mean
        return vectors.transpose(1, 2).reshape(len(codes), -1, *self.grid)

    @torch.no_grad()
    def finish(self, latents: Tensor) -> None:
        means = flat(self.latent.posterior(latents)[0])
        self.mean.copy_(means.mean(0))
        self.spread.copy_(means.std(0).clamp(min=1e-4))
