"""ImageFolder: next-scale prediction of folded tokens."""

from __future__ import annotations

from ancestral.decoding.decoders import Ancestral
from ancestral.generator import Generator
from ancestral.heads import Categorical, Nested
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.networks.scales import ScaleTransformer
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers.learned import Autoencoder, Convolutional, MultiScaleVQ, Product


@recipe(
    "imagefolder",
    title="ImageFolder: Autoregressive Image Generation with Folded Tokens",
    paper="arXiv:2410.01756",
    authors="Li, Qiu, Chen, Kuen, Gu, Raj, Lin (2024)",
    differs_from="var",
    tiny=dict(width=16, depth=2, heads=2, dropout=0.0, codes=2, scales=(1, 2), channels=8, multipliers=(1,)),
    toy="grid4",
    claim=Claim("two codes per place reconstruct better at the same length, and are generated better"),
)
def imagefolder(
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
    dropout: float = 0.1,
    codes: int = 256,
    scales: tuple[int, ...] | None = None,
    channels: int = 32,
    multipliers: tuple[int, ...] = (1, 2),
    patch: int = 2,
    perceptual: float = 0.1,
    adversarial: float = 0.0,
    semantic: float = 0.1,
    drop: float = 0.1,
) -> Model:
    """Two branches quantise the latents' channels side by side, scale by scale; a place's codes are drawn at once.

    A place's codes are folded into one token for the transformer, so that a second branch costs no length; they are
    drawn independently given the coarser scales. A contrastive loss aligns the second branch with the features of a
    frozen network, and some training images are decoded from their coarser maps alone.

    The published encoder reads images by queries, and the frozen network is DINOv2; here both branches learn from the
    same convolutional encoder, and the frozen network is the small one of the perceptual loss, trained on the data.

    Reference:
        Li, Qiu, Chen, Kuen, Gu, Raj, Lin. ImageFolder: autoregressive image generation with folded tokens. 2024,
        arXiv:2410.01756.

    Args:
        width, depth, heads, dropout: of the transformer.
        codes: size of each branch's codebook.
        scales: side of every map of codes, coarsest first; see ``var``.
        channels, multipliers, patch: of the autoencoder.
        perceptual, adversarial, semantic: weights of the autoencoder's losses.
        drop: share of the tokenizer's training images whose finer maps are left out.
    """
    tokenizer = Autoencoder(
        Product([MultiScaleVQ(codes, 4, scales, drop=drop) for _ in range(2)]),
        Convolutional(channels, multipliers, patch=patch),
        perceptual=perceptual,
        adversarial=adversarial,
        semantic=semantic,
    )
    return Model(
        tokenizer,
        "scales",
        ScaleTransformer(width, depth, heads, dropout=dropout),
        Nested(Generator(CausalTransformer(width, 1, 2), Categorical(), "single")),
        decoder=Ancestral(ramp="sets"),
        training=dict(lr=2e-3, batch_size=128),
    )
