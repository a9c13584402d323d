"""FlowAR: next-scale prediction of continuous latents by flow matching."""

from __future__ import annotations

from ancestral.heads import FlowHead
from ancestral.model import Model
from ancestral.networks.scales import ScaleTransformer
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers.learned import KL, Autoencoder, Convolutional, LatentPyramid


@recipe(
    "flowar",
    title="FlowAR: Scale-wise Autoregressive Image Generation Meets Flow Matching",
    paper="arXiv:2412.15205",
    authors="Ren, Yu, He, Shen, Yuille, Chen (2024)",
    differs_from="var",
    tiny=dict(
        width=16, depth=2, heads=2, dropout=0.0, head_width=32, head_depth=1, head_heads=2, head_passes=2, latents=2,
        channels=8, multipliers=(1,), patch=1,
    ),
    toy="grid4",
    claim=Claim("scales that double need no tokenizer of their own, and flow matching draws better images than codes"),
)  # fmt: skip
def flowar(
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    dropout: float = 0.1,
    head_width: int = 128,
    head_depth: int = 2,
    head_heads: int = 4,
    head_passes: int = 12,
    scales: tuple[int, ...] | None = None,
    latents: int = 4,
    channels: int = 32,
    multipliers: tuple[int, ...] = (1, 2),
    patch: int = 2,
    perceptual: float = 0.1,
    adversarial: float = 0.0,
) -> Model:
    """Draw the latents of any variational autoencoder at double the resolution, again and again, each scale at once.

    The latents are averaged to every scale, each twice as fine as the one before. A block-causal transformer reads the
    coarser maps, enlarged, and says what belongs where in the next one; a smaller transformer turns noise into that
    whole map, scaled, shifted and gated at every place by what was said of it. The places of a map are drawn jointly:
    unlike codes, they may depend on each other.

    Scores are estimates of the density of all maps, which are more numbers than the finest map alone, and say nothing
    of pixels. A given coarse map is refined by ``complete``: see the page on completion.

    Reference:
        Ren, Yu, He, Shen, Yuille, Chen. FlowAR: scale-wise autoregressive image generation meets flow matching. 2024,
        arXiv:2412.15205.

    Args:
        width, depth, heads, dropout: of the transformer over scales.
        head_width, head_depth, head_heads, head_passes: of the flow-matching transformer, and steps that it draws a map
            in.
        scales: side of every map, coarsest first; by default doubling from 1 to the latents' side.
        latents: channels of the autoencoder's latents.
        channels, multipliers, patch: of the autoencoder.
        perceptual, adversarial: weights of the autoencoder's losses.
    """
    tokenizer = Autoencoder(
        LatentPyramid(KL(latents), scales),
        Convolutional(channels, multipliers, patch=patch),
        perceptual=perceptual,
        adversarial=adversarial,
    )
    return Model(
        tokenizer,
        "scales",
        ScaleTransformer(width, depth, heads, dropout=dropout),
        FlowHead(head_width, head_depth, head_passes, repeats=2, sees="set", heads=head_heads),
        training=dict(lr=1e-3, batch_size=128),
    )
