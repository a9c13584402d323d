"""xAR: next-X prediction, X being a patch, a cell, a subsample, a scale or the whole image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ancestral.errors import DataError
from ancestral.heads import FlowHead
from ancestral.model import Model
from ancestral.networks.entities import EntityTransformer
from ancestral.order import FixedOrder, Order
from ancestral.recipes.registry import Claim, recipe
from ancestral.space import Space
from ancestral.tokenizers.learned import KL, Autoencoder, Convolutional, LatentPyramid


@recipe(
    "xar",
    title="Beyond Next-Token: Next-X Prediction for Autoregressive Visual Generation",
    paper="arXiv:2502.20388",
    authors="Ren, Yu, He, Shen, Yuille, Chen (2025)",
    differs_from="flowar",
    tiny=dict(
        width=16, depth=2, heads=2, dropout=0.0, passes=2, latents=2, channels=8, multipliers=(1,), patch=1,
    ),
    toy="grid4",
    claim=Claim("cells of noisy latents, drawn by flow matching, beat larger diffusion models, 20 times faster"),
)  # fmt: skip
def xar(
    entity: Literal["patch", "cell", "subsample", "scale", "image"] = "cell",
    side: int = 2,
    noisy: bool = True,
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
    dropout: float = 0.1,
    passes: int = 12,
    latents: int = 4,
    channels: int = 32,
    multipliers: tuple[int, ...] = (1,),
    patch: int = 2,
    perceptual: float = 0.1,
    adversarial: float = 0.0,
) -> Model:
    """Draw entity after entity of continuous latents, each by flow matching through the whole transformer.

    In training every entity of an image is noisy, each as much as a random time of its own says, and the transformer
    regresses where each moves from itself and the noisy entities before it (block-causal). So it never sees perfect
    entities before, and does not rely on them when it draws (noisy context learning). A sample solves the differential
    equation of one entity after the other; those drawn stay in the cache.

    An entity is one latent, a square of neighbours, a subsample of distant latents, a map of a pyramid of scales, or
    all of the image at once, which is plain flow matching.

    Scores are estimates of the density of latents, and say nothing of pixels.

    Reference:
        Ren, Yu, He, Shen, Yuille, Chen. Beyond next-token: next-X prediction for autoregressive visual generation.
        2025, arXiv:2502.20388.

    Args:
        entity: what X is.
        side: of a cell in latents; of a subsample, the distance between its latents.
        noisy: learn from noisy entities before, rather than from the true ones.
        width, depth, heads, dropout: of the transformer.
        passes: steps that an entity is drawn in.
        latents: channels of the autoencoder's latents.
        channels, multipliers, patch: of the autoencoder.
        perceptual, adversarial: weights of the autoencoder's losses.
    """

    def divided(order: Callable[[int, int, int], Order]) -> Callable[[Space], Order]:
        def made(space: Space) -> Order:
            height, width = space.grid
            if height % side or width % side:
                raise DataError(
                    f"{height} x {width} latents do not divide by side={side}; choose another side= or size of images"
                )
            return order(height, width, side)

        return made

    orders: dict[str, str | Callable[[Space], Order]] = {
        "patch": "raster",
        "cell": divided(Order.cells),
        "subsample": divided(Order.subsamples),
        "scale": "scales",
        "image": "single",
    }
    if entity not in orders:
        raise ValueError(f"entity={entity!r} must be one of {', '.join(orders)}")
    tokenizer = Autoencoder(
        LatentPyramid(KL(latents)) if entity == "scale" else KL(latents),
        Convolutional(channels, multipliers, patch=patch),
        perceptual=perceptual,
        adversarial=adversarial,
    )
    return Model(
        tokenizer,
        FixedOrder(orders[entity]),
        EntityTransformer(width, depth, heads, dropout=dropout, noisy=noisy),
        FlowHead(passes=passes, repeats=1, sees="network"),
        training=dict(lr=1e-3, batch_size=128),
    )
