"""Convolutional, order-agnostic NADE: the library's default for images."""

from __future__ import annotations

from ancestral.augment import Augmented, Warp
from ancestral.heads.fitting import fitting
from ancestral.model import Model
from ancestral.networks.masked_convolution import MaskedConvolution
from ancestral.objectives import MaskedLikelihood
from ancestral.order import RandomOrders
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import Pixels


@recipe(
    "conv-nade",
    title="Neural autoregressive distribution estimation, convolutional and order-agnostic",
    paper="arXiv:1605.02226",
    authors="Uria, Côté, Gregor, Murray, Larochelle (2016)",
    tiny=dict(width=16, depth=2),
    toy="grid",
    differs_from="nade",
    claim=Claim(
        "on images a convolutional network scores better than a dense or attentive one of equal cost", "digits"
    ),
)
def conv_nade(
    width: int = 32, depth: int = 4, dropout: float = 0.1, head: str = "auto", augment: float = 0.0, ink: bool = False
) -> Model:
    """Convolutions over known pixels and mask symbols predict every hidden pixel; any order, any subset known.

    Training hides 1 to N pixels with equal chance and minimises the mean cross-entropy of the hidden ones, which
    is an unbiased estimate of the order-agnostic bound. Half of the items hide all pixels behind a point of the raster
    order instead, which exact scores, samples and codes follow.

    Reference:
        Uria, Côté, Gregor, Murray, Larochelle. Neural autoregressive distribution estimation. 2016,
        arXiv:1605.02226 (order-agnostic training and convolutions).

    Args:
        width: channels, a multiple of 8.
        depth: residual layers.
        dropout: share of channels dropped in training.
        head: auto, categorical or logistic (ordered levels); colour values at one pixel are drawn in turn.
        augment: share of the training images that are warped a little; the network is told which.
        ink: levels are shares of ink, as in scans of writing; see :class:`ancestral.augment.Warp`.
    """
    objective = MaskedLikelihood("uniform", "bound", prefixes=0.5)
    return Model(
        Pixels(),
        RandomOrders("raster"),
        MaskedConvolution(width, depth, dropout),
        fitting(head, max(16, width // 2)),  # type: ignore[arg-type]
        objective=Augmented(objective, Warp(ink=ink), augment) if augment else objective,
        training=dict(lr=3e-3, batch_size=64, ema=0.995),
    )
