"""A PixelCNN for the raster order beside a convolutional NADE for any other: small images, little time."""

from __future__ import annotations

from ancestral.augment import Augmented, Warp
from ancestral.heads import Categorical, LogLinear
from ancestral.model import Model
from ancestral.networks import CausalConvolution, ClassMixture, MaskedConvolution, Specialist
from ancestral.objectives import InOrder, Jointly, MaskedLikelihood
from ancestral.order import RandomOrders
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import Pixels


@recipe(
    "pixelcnn-any",
    title="PixelCNN for scores and samples, order-agnostic convolutions for any other question",
    paper="arXiv:1606.05328",
    authors="after van den Oord et al. (2016), arXiv:1606.05328; Uria et al. (2016), arXiv:1605.02226",
    tiny=dict(width=8, depth=1, other_width=8, other_depth=1, augment=0.5),
    toy="grid",
    differs_from="pixelcnn",
    claim=Claim("a specialist for one order scores better than the order-agnostic network in the same time", "digits"),
)
def pixelcnn_any(
    width: int = 32,
    depth: int = 4,
    dropout: float = 0.1,
    other_width: int = 32,
    other_depth: int = 3,
    augment: float = 0.0,
    ink: bool = False,
) -> Model:
    """A PixelCNN, mixed over the classes, follows the raster order; a ConvNADE answers what any subset leaves open.

    Both learn from the same batches. Exact scores, samples, codes and completions below a known top are the first
    one's; a completion from other known pixels is the second one's, drawn by its own chain rule.

    Reference:
        van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu. Conditional image generation with
        PixelCNN decoders. 2016, arXiv:1606.05328.
        Uria, Côté, Gregor, Murray, Larochelle. Neural autoregressive distribution estimation. 2016,
        arXiv:1605.02226 (sec. 4: order-agnostic training and convolutions).

    Args:
        width, depth, dropout: of the PixelCNN; the width is a multiple of 4.
        other_width, other_depth: of the order-agnostic network; the width is a multiple of 8.
        augment: share of the training images that are warped; the networks are told which.
        ink: levels are shares of ink, as in scans of writing; see :class:`ancestral.augment.Warp`.
    """
    objective = Jointly(InOrder(), MaskedLikelihood("uniform", "bound", withhold=0.1))
    return Model(
        Pixels(),
        RandomOrders("raster"),
        Specialist(
            (ClassMixture(CausalConvolution(width, depth, dropout), Categorical()), LogLinear()),
            (MaskedConvolution(other_width, other_depth, dropout), Categorical()),
        ),
        LogLinear(),
        objective=Augmented(objective, Warp(ink=ink), augment) if augment else objective,
        label_dropout=0.0,
        training=dict(lr=4e-3, batch_size=64, ema=0.995),
    )
