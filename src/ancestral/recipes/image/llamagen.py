"""LlamaGen: next-token prediction over the codes of images."""

from __future__ import annotations

from ancestral.heads.fitting import fitting
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers.learned import VQ, Autoencoder, Convolutional


@recipe(
    "llamagen",
    title="Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation",
    paper="arXiv:2406.06525",
    authors="Sun, Jiang, Chen, Zhang, Peng, Luo, Yuan (2024)",
    differs_from="gpt",
    tiny=dict(width=16, depth=2, heads=2, dropout=0.0, codes=4, channels=8, multipliers=(1,)),
    toy="grid4",
    claim=Claim("a plain language model over image codes draws better images than diffusion models of its size"),
)
def llamagen(
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
    dropout: float = 0.1,
    codes: int = 1024,
    channels: int = 32,
    multipliers: tuple[int, ...] = (1, 2),
    patch: int = 2,
    perceptual: float = 0.1,
    adversarial: float = 0.0,
) -> Model:
    """A vector-quantised autoencoder turns an image into a grid of codes; a Llama predicts them one after another.

    The codes are short vectors on the unit sphere, trained with a perceptual and, if asked, an adversarial loss. The
    transformer (RMSNorm, SwiGLU, two-dimensional rotary positions) starts from the class, which is withheld at random
    in training, so that samples can be guided.

    The published perceptual loss compares features of a network trained on ImageNet, which is not at hand; here it is
    a small one trained on the data themselves.

    Reference:
        Sun, Jiang, Chen, Zhang, Peng, Luo, Yuan. Autoregressive model beats diffusion: Llama for scalable image
        generation. 2024, arXiv:2406.06525.

    Args:
        width, depth, heads, dropout: of the transformer.
        codes: size of the codebook.
        channels, multipliers, patch: of the autoencoder; a code stands for ``patch * 2 ** (levels - 1)`` pixels along
            each axis.
        perceptual, adversarial: weights of the autoencoder's losses.
    """
    tokenizer = Autoencoder(
        VQ(codes, width=8),
        Convolutional(channels, multipliers, patch=patch),
        perceptual=perceptual,
        adversarial=adversarial,
    )
    return Model(
        tokenizer,
        "raster",
        CausalTransformer(width, depth, heads, dropout, prefix=True),
        fitting("categorical"),
        training=dict(lr=2e-3, batch_size=128),
    )
