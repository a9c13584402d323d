"""PAR: parallelised autoregression."""

from __future__ import annotations

from ancestral.errors import DataError
from ancestral.heads.fitting import fitting
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.order import FixedOrder, Order
from ancestral.recipes.registry import Claim, recipe
from ancestral.space import Space
from ancestral.tokenizers.learned import VQ, Autoencoder, Convolutional


@recipe(
    "par",
    title="Parallelized Autoregressive Visual Generation",
    paper="arXiv:2412.15119",
    authors="Wang, Ren, Lin, Han, Guo, Yang, Zou, Feng, Liu (2024)",
    differs_from="llamagen",
    tiny=dict(width=16, depth=2, heads=2, dropout=0.0, codes=3, channels=8, multipliers=(1,), patch=1),
    toy="wide",
    claim=Claim("3.6 times faster at comparable quality, up to 9.5 times with a small loss"),
)
def par(
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
    dropout: float = 0.1,
    regions: int = 2,
    codes: int = 1024,
    channels: int = 32,
    multipliers: tuple[int, ...] = (1,),
    patch: int = 2,
    perceptual: float = 0.1,
    adversarial: float = 0.0,
) -> Model:
    """Codes that are far apart depend little on each other, and are drawn together; neighbours follow in turn.

    The grid of codes is cut into ``regions x regions`` regions. Their first codes are drawn one by one; then one code
    of every region at a time, each fed the code that was drawn before in its region. Codes of one step see all earlier
    ones. The codes of a step are independent given those, so that probabilities are exact but the model cannot express
    what only they share.

    The published transition from the first phase to the second feeds learned tokens; here the regions' first codes.

    Reference:
        Wang, Ren, Lin, Han, Guo, Yang, Zou, Feng, Liu. Parallelized autoregressive visual generation. 2024,
        arXiv:2412.15119.

    Args:
        width, depth, heads, dropout: of the transformer.
        regions: along each axis; must divide the grid of codes.
        codes: size of the codebook.
        channels, multipliers, patch: of the autoencoder.
        perceptual, adversarial: weights of the autoencoder's losses.
    """

    def order(space: Space) -> Order:
        try:
            return Order.parallel(*space.grid, regions)
        except ValueError as error:
            raise DataError(f"{error}; choose another regions= or another size of the codes' grid") from error

    tokenizer = Autoencoder(
        VQ(codes, width=8),
        Convolutional(channels, multipliers, patch=patch),
        perceptual=perceptual,
        adversarial=adversarial,
    )
    return Model(
        tokenizer,
        FixedOrder(order),
        CausalTransformer(width, depth, heads, dropout, prefix=True),
        fitting("categorical"),
        training=dict(lr=2e-3, batch_size=128),
    )
