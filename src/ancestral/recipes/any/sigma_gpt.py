"""sigma-GPT: a GPT whose order is an input."""

from __future__ import annotations

from torch import Tensor

from ancestral.decoding.burst import Burst
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.order import Order, RandomOrders
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import by_modality


class Curriculum(RandomOrders):
    """From the base order to random ones: the share of permuted items rises linearly to 1.

    Args:
        until: share of training after which every item is permuted.
    """

    def __init__(self, until: float):
        super().__init__("raster")
        self.until = until

    def draw(self, uniforms: Tensor, progress: float = 1.0) -> Order:
        self.probability = min(1.0, progress / self.until) if self.until > 0 else 1.0
        return super().draw(uniforms, progress)


@recipe(
    "sigma-gpt",
    title="sigma-GPTs: A New Approach to Autoregressive Models",
    paper="arXiv:2404.09562",
    authors="Pannatier, Courdier, Fleuret (2024)",
    differs_from="gpt",
    tiny=dict(width=16, depth=2, heads=2, dropout=0.0),
    toy="grid",
    claim=Claim("burst sampling with rejection needs an order of magnitude fewer passes than one per token"),
)
def sigma_gpt(
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    dropout: float = 0.1,
    curriculum: float = 0.3,
    data: str = "images",
    length: int | None = None,
) -> Model:
    """Every token carries two positions, its own and that of the token to predict; the rest is a plain GPT.

    Sequences are shuffled in training, so that the order is chosen anew for each sample and any known tokens can
    come first. A curriculum starts from the natural order and ends with random ones, which mends most of what
    random orders cost.

    Sampling proposes all remaining tokens in one pass, each given the known ones only, scores the proposals along a
    random order in a second pass, and keeps them up to the first that is rejected (:class:`Burst`).

    Positions are learned vectors added to the input, and rotary ones of the predicted token; the paper's are
    sinusoidal.

    Reference:
        Pannatier, Courdier, Fleuret. sigma-GPTs: a new approach to autoregressive models. 2024, arXiv:2404.09562.

    Args:
        width, depth, heads, dropout: of the causal transformer.
        curriculum: share of training in which the order goes from natural to random; 0 for none.
        data: modality: images, table, sequences, or text in items of at most ``length`` bytes.
        length: for text and sequences.
    """
    return Model(
        by_modality(data, length),
        Curriculum(curriculum),
        CausalTransformer(width, depth, heads, dropout, targets=True, blind=True),
        Categorical(),
        decoder=Burst(),
        training=dict(lr=2e-3, batch_size=128),
    )
