"""Next patch prediction: coarse patches of codes first in training, single codes at the end."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ancestral.errors import DataError
from ancestral.generator import Generator
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.noise import Noise
from ancestral.objectives import InOrder
from ancestral.order import Order
from ancestral.recipes.registry import Claim, recipe
from ancestral.space import Condition
from ancestral.tokenizers.learned import VQ, Autoencoder, Convolutional


class PatchLikelihood:
    """Likelihood of patches of codes, from the means of the embeddings of the patches before; of codes at the end.

    Args:
        levels: patch sides ``2^(levels - 1), ..., 2, 1``, one after the other.
        rate: every size ends at this share of the training that the next finer one ends at.
    """

    def __init__(self, levels: int, rate: float):
        self.levels, self.rate = levels, rate

    def side(self, progress: float) -> int:
        """Of the patches, once the share ``progress`` of training is done."""
        ends = (self.rate**level for level in reversed(range(self.levels)))
        passed = sum(progress >= end for end in ends)
        return 2 ** max(self.levels - 1 - passed, 0)

    def loss(self, generator: Generator, values: Tensor, condition: Condition, noise: Noise, progress: float) -> Tensor:
        """Mean nats per code of ``values`` ``[B, N]``."""
        side = self.side(progress)
        height, width = generator.space.grid
        if height % side or width % side:
            raise DataError(f"{height} x {width} codes do not divide into patches of side {side}; give fewer levels=")
        if side == 1:
            return InOrder().loss(generator, values, condition, noise, progress)
        network = generator.network
        assert isinstance(network, CausalTransformer)
        each = network.embed(values, torch.arange(generator.space.n, device=values.device))
        grid = each.transpose(1, 2).reshape(len(values), -1, height, width)
        patches = F.avg_pool2d(grid, side).flatten(2).transpose(1, 2)
        # A patch stands where the coarser grid of patches has it, as if that were the grid of codes.
        rows = torch.arange(height // side, device=values.device)
        sites = (rows[:, None] * width + torch.arange(width // side, device=values.device)).reshape(-1)
        start = network.first + network.told(condition, sites[:1], len(values))
        inputs = torch.cat([start.expand(len(values), 1, -1), patches[:, :-1]], 1)
        features, _ = network.mix(inputs, (0, len(sites)), sites, Order.raster(len(sites)), None)
        wanted = F.pixel_unshuffle(values.reshape(-1, 1, height, width), side).flatten(2)
        distribution = generator.head(features, sites)
        return -torch.stack([distribution.log_prob(code) for code in wanted.unbind(1)]).mean()


@recipe(
    "next-patch-prediction",
    title="Next Patch Prediction for Autoregressive Visual Generation",
    paper="arXiv:2412.15321",
    authors="Pang, Jin, Yang, Lin, Zhu, Tang, Chen, Tay, Lim, Yang, Yuan (2024)",
    differs_from="llamagen",
    tiny=dict(width=16, depth=2, heads=2, dropout=0.0, levels=2, codes=4, channels=8, multipliers=(1,)),
    toy="grid4",
    claim=Claim("about 0.6 times the training cost, and better images, with no further parameters"),
)
def next_patch_prediction(
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
    dropout: float = 0.1,
    levels: int = 2,
    rate: float = 0.5,
    codes: int = 1024,
    channels: int = 32,
    multipliers: tuple[int, ...] = (1,),
    patch: int = 2,
    perceptual: float = 0.1,
    adversarial: float = 0.0,
) -> Model:
    """Train on patches of codes, whose size falls to one code; draw code by code as ever.

    The embeddings of a square of codes are averaged, so that a sequence of patches is a fraction as long, and costs a
    fraction as much. From the patches before, one distribution is predicted for a patch, and scored on each of its
    codes. Patches shrink from coarse to fine while training goes on, and the last part of it is ordinary next-code
    prediction with the same weights. Nothing is added to the network, and samples, scores and completions are those of
    ``llamagen``.

    Reference:
        Pang, Jin, Yang, Lin, Zhu, Tang, Chen, Tay, Lim, Yang, Yuan. Next patch prediction for autoregressive visual
        generation. 2024, arXiv:2412.15321.

    Args:
        width, depth, heads, dropout: of the transformer.
        levels: patch sizes: 2 are 2 x 2 and single codes, 3 start with 4 x 4.
        rate: share of the training until the next finer size ends that a size ends at: with 2 levels half is trained on
            patches.
        codes: size of the codebook.
        channels, multipliers, patch: of the autoencoder; see ``llamagen``.
        perceptual, adversarial: weights of the autoencoder's losses.
    """
    if levels < 1 or not 0 < rate < 1:
        raise ValueError(f"levels={levels} must be at least 1 and rate={rate} between 0 and 1")
    tokenizer = Autoencoder(
        VQ(codes, width=8),
        Convolutional(channels, multipliers, patch=patch),
        perceptual=perceptual,
        adversarial=adversarial,
    )
    return Model(
        tokenizer,
        "raster",
        CausalTransformer(width, depth, heads, dropout, targets=False, prefix=True),
        Categorical(),
        objective=PatchLikelihood(levels, rate),
        training=dict(lr=2e-3, batch_size=128),
    )
