"""PixelCNN: gated causal convolutions, steered by the class."""

from __future__ import annotations

from ancestral.augment import Augmented, Warp
from ancestral.heads import Categorical, LogLinear
from ancestral.model import Model
from ancestral.networks import CausalConvolution, ClassMixture, Ensemble
from ancestral.objectives import Likelihood
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import Pixels


@recipe(
    "pixelcnn",
    title="Conditional image generation with PixelCNN decoders",
    paper="arXiv:1606.05328",
    authors="van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu (2016)",
    tiny=dict(width=8, depth=1, members=2, augment=0.5),
    toy="grid",
    differs_from="conv-nade",
    claim=Claim(
        "trained for one order, it takes fewer bits than an any-order network of equal training time", "digits"
    ),
)
def pixelcnn(
    width: int = 40, depth: int = 5, dropout: float = 0.2, members: int = 1, augment: float = 0.0, ink: bool = False
) -> Model:
    """Every pixel given those above and to the left, all conditionals from one pass, gates steered by the class.

    Images whose class is not told are scored, drawn and coded by the exact mixture over the classes. Several members
    are averaged in the log domain at every pixel; training images can be warped, which small data need. Unlike the
    paper's two stacks, a triangular map between all pixels before (on small grids) leaves no blind spot.

    Reference:
        van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu. Conditional image generation with
        PixelCNN decoders. 2016, arXiv:1606.05328.

    Args:
        width: channels, a multiple of 4.
        depth: layers.
        dropout: share of activations dropped in training.
        members: networks in the ensemble, trained side by side.
        augment: share of the training images that are warped; the networks are told which.
        ink: levels are shares of ink, as in scans of writing; see :class:`ancestral.augment.Warp`.
    """
    each = [
        (ClassMixture(CausalConvolution(width, depth, dropout), Categorical()), LogLinear()) for _ in range(members)
    ]
    return Model(
        Pixels(),
        "raster",
        Ensemble(each),
        LogLinear(),
        objective=Augmented(Likelihood(), Warp(ink=ink), augment),
        label_dropout=0.0,
        training=dict(lr=5e-3, batch_size=64, ema=0.998, betas=(0.9, 0.98)),
    )
