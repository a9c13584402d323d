"""MAR: masked autoregression over continuous tokens."""

from __future__ import annotations

from ancestral.decoding.parallel import RandomSets
from ancestral.heads import DiffusionHead
from ancestral.model import Model
from ancestral.networks.vision import MaskedAutoencoder
from ancestral.objectives import MaskedLikelihood
from ancestral.order import RandomMasks
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers.learned import KL, Autoencoder, Convolutional


@recipe(
    "mar",
    title="Autoregressive Image Generation without Vector Quantization",
    paper="arXiv:2406.11838",
    authors="Li, Tian, Li, Deng, He (2024)",
    differs_from="maskgit",
    tiny=dict(
        width=16, depth=1, heads=2, dropout=0.0, buffer=2, passes=3, head_width=64, head_depth=1, head_passes=5,
        latents=4, channels=8, multipliers=(1,),
    ),
    toy="grid4",
    claim=Claim("a diffusion loss per token does without vector quantisation, at the speed of sequence models"),
)  # fmt: skip
def mar(
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    dropout: float = 0.1,
    buffer: int = 8,
    passes: int = 16,
    head_width: int = 128,
    head_depth: int = 3,
    head_passes: int = 50,
    latents: int = 4,
    channels: int = 32,
    multipliers: tuple[int, ...] = (1, 2),
    patch: int = 2,
    perceptual: float = 0.1,
    adversarial: float = 0.0,
) -> Model:
    """Hide 70 to 100 % of the latents; a small diffusion model per token draws each hidden one from its features.

    The tokens are the latents of a variational autoencoder, as they are. An encoder reads the known tokens, a decoder
    gives features to the hidden ones, and a perceptron learns to take the noise off a token given its features. Samples
    reveal random sets on a cosine schedule; guidance grows with the share of tokens revealed.

    Scores are a lower bound on the density of latents in random sets on that schedule, and say nothing of pixels.

    Reference:
        Li, Tian, Li, Deng, He. Autoregressive image generation without vector quantization. 2024, arXiv:2406.11838.

    Args:
        width, depth, heads, dropout: of the encoder, and of the decoder.
        buffer: class tokens before the encoder's input.
        passes: random sets that an image is drawn in.
        head_width, head_depth, head_passes: of the diffusion head, and steps that it draws a token in.
        latents: channels of the autoencoder's latents.
        channels, multipliers, patch: of the autoencoder.
        perceptual, adversarial: weights of the autoencoder's losses.
    """
    tokenizer = Autoencoder(
        KL(latents), Convolutional(channels, multipliers, patch=patch), perceptual=perceptual, adversarial=adversarial
    )
    return Model(
        tokenizer,
        RandomMasks(passes),
        MaskedAutoencoder(width, depth, heads, dropout=dropout, buffer=buffer),
        DiffusionHead(head_width, head_depth, head_passes),
        objective=MaskedLikelihood("high", "mean"),
        decoder=RandomSets(passes, ramp="after"),
        training=dict(lr=1e-3, batch_size=128),
    )
