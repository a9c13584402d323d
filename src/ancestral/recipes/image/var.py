"""VAR: next-scale prediction."""

from __future__ import annotations

from ancestral.decoding.decoders import Ancestral
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks.scales import ScaleTransformer
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers.learned import Autoencoder, Convolutional, MultiScaleVQ


@recipe(
    "var",
    title="Visual Autoregressive Modeling: Scalable Image Generation via Next-Scale Prediction",
    paper="arXiv:2404.02905",
    authors="Tian, Jiang, Yuan, Peng, Wang (2024)",
    differs_from="llamagen",
    tiny=dict(width=16, depth=2, heads=2, dropout=0.0, codes=5, scales=(1, 2), channels=8, multipliers=(1,)),
    toy="grid4",
    claim=Claim("next-scale prediction draws better images than raster order, in about a twentieth of the time"),
)
def var(
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
    dropout: float = 0.1,
    codes: int = 512,
    scales: tuple[int, ...] | None = None,
    channels: int = 32,
    multipliers: tuple[int, ...] = (1, 2),
    patch: int = 2,
    perceptual: float = 0.1,
    adversarial: float = 0.0,
) -> Model:
    """Draw each map of codes at once, given all coarser maps.

    The tokenizer quantises an image's latents at growing resolution, each scale what the coarser ones have left over,
    with one codebook. A transformer predicts all codes of a scale in parallel from the sum of the coarser scales'
    code vectors; the class sets the scale, shift and gate of its layers. Known codes are taken as given, which
    makes inpainting possible.

    The codes of a scale are drawn independently given the coarser scales: probabilities are exact, but the model
    cannot express what only they share.

    Reference:
        Tian, Jiang, Yuan, Peng, Wang. Visual autoregressive modeling: scalable image generation via next-scale
        prediction. 2024, arXiv:2404.02905.

    Args:
        width, depth, heads, dropout: of the transformer.
        codes: size of the codebook.
        scales: side of every map of codes, coarsest first; the last is the images' side divided by
            ``patch * 2 ** (levels - 1)``. By default each is a third larger than the one before.
        channels, multipliers, patch: of the autoencoder.
        perceptual, adversarial: weights of the autoencoder's losses.
    """
    tokenizer = Autoencoder(
        MultiScaleVQ(codes, 8, scales),
        Convolutional(channels, multipliers, patch=patch),
        perceptual=perceptual,
        adversarial=adversarial,
    )
    return Model(
        tokenizer,
        "scales",
        ScaleTransformer(width, depth, heads, dropout=dropout),
        Categorical(),
        decoder=Ancestral(ramp="sets"),
        training=dict(lr=2e-3, batch_size=128),
    )
