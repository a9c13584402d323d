"""TokenBridge: continuous latents, quantised after training."""

from __future__ import annotations

from ancestral.generator import Generator
from ancestral.heads import Categorical, Nested
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers.learned import Autoencoder, Bins, Convolutional


@recipe(
    "tokenbridge",
    title="Bridging Continuous and Discrete Tokens for Autoregressive Visual Generation",
    paper="arXiv:2503.16430",
    authors="Wang, Lin, Teng, Zhu, Ren, Feng, Liu (2025)",
    differs_from="llamagen",
    tiny=dict(
        width=16, depth=2, heads=2, dropout=0.0, bins=3, latents=2, head_width=8, channels=8, multipliers=(1,),
    ),
    toy="grid4",
    claim=Claim("binned channels of a variational autoencoder are as good as continuous tokens, by plain categories"),
)  # fmt: skip
def tokenbridge(
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
    dropout: float = 0.1,
    bins: int = 16,
    latents: int = 4,
    head_width: int = 64,
    channels: int = 32,
    multipliers: tuple[int, ...] = (1, 2),
    patch: int = 2,
    perceptual: float = 0.1,
    adversarial: float = 0.0,
) -> Model:
    """A trained variational autoencoder's channels are cut into bins; a small model draws a token's bins one by one.

    Nothing is trained for the quantisation: every channel is cut into bins of equal probability. The tokens follow each
    other in raster order; within a token a small transformer draws the channels in turn.

    The published bins are evenly wide in the cumulative distribution within a range, and channels follow an order by
    their frequency content; here bins are equally probable, and channels follow by number.

    Reference:
        Wang, Lin, Teng, Zhu, Ren, Feng, Liu. Bridging continuous and discrete tokens for autoregressive visual
        generation. 2025, arXiv:2503.16430.

    Args:
        width, depth, heads, dropout: of the transformer over tokens.
        bins: per channel.
        latents: channels of a token.
        head_width: of the transformer over a token's channels.
        channels, multipliers, patch: of the autoencoder.
        perceptual, adversarial: weights of the autoencoder's losses.
    """
    tokenizer = Autoencoder(
        Bins(latents, bins),
        Convolutional(channels, multipliers, patch=patch),
        perceptual=perceptual,
        adversarial=adversarial,
    )
    return Model(
        tokenizer,
        "raster",
        CausalTransformer(width, depth, heads, dropout, prefix=True),
        Nested(Generator(CausalTransformer(head_width, 1, 2), Categorical())),
        training=dict(lr=2e-3, batch_size=128),
    )
