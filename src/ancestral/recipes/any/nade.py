"""NADE: neural autoregressive distribution estimation."""

from __future__ import annotations

from ancestral.decoding.decoders import Ancestral, Decoder
from ancestral.decoding.ensemble import OrderEnsemble
from ancestral.heads.fitting import fitting
from ancestral.model import Model
from ancestral.networks import NADE, DeepNADE, Network
from ancestral.objectives import Likelihood, MaskedLikelihood
from ancestral.order import FixedOrder, OrderPolicy, RandomMasks
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import by_modality


@recipe(
    "nade",
    title="Neural Autoregressive Distribution Estimation",
    paper="arXiv:1605.02226",
    authors="Uria, Côté, Gregor, Murray, Larochelle (2016)",
    tiny=dict(width=16, data="table"),
    toy="table",
    claim=Claim(
        "tractable and competitive on binary and real-valued data; an ensemble of orders scores better than one"
    ),
)
def nade(
    width: int = 256,
    depth: int = 1,
    agnostic: bool = False,
    hidden: int = 512,
    dropout: float = 0.0,
    ensemble: int = 1,
    data: str = "images",
    length: int | None = None,
) -> Model:
    """One running sum of hidden activations gives all conditionals: ``c + sum_{j before i} W_j[x_j]``, then the output.

    All conditionals of an item cost as much as one pass through a hidden layer, O(N H), because the sum before a
    site is the sum before the one ahead of it plus one term. The order is that of the columns or pixels.

    With ``agnostic=True`` the model is DeepNADE instead: the known values and their mask go into a deep network whose
    outputs predict every hidden site. Training hides 1 to N sites of each item with equal chance and takes the mean
    cross-entropy of the hidden ones, an unbiased estimate of the mean over all orders. It answers for any
    order, and an ensemble of orders is the mixture of what they say (:class:`OrderEnsemble`), which
    ``OrderEnsemble(8).log_prob(model.generator, values)`` scores exactly.

    Weights W_j are a shared table, scaled and shifted by vectors of the site's own, where the paper's are free; the
    nonlinearity is SiLU where the paper's is a sigmoid. Convolutions are in ``conv-nade``.

    Reference:
        Uria, Côté, Gregor, Murray, Larochelle. Neural autoregressive distribution estimation. 2016, arXiv:1605.02226.

    Args:
        width: hidden units; features per site with ``agnostic``.
        depth: hidden layers.
        agnostic: DeepNADE, for any order.
        hidden: units of DeepNADE's shared layers.
        dropout: of DeepNADE.
        ensemble: orders that samples are drawn from, with ``agnostic``.
        data: modality: images, table, sequences, or text in items of at most ``length`` bytes.
        length: for text and sequences.
    """
    if ensemble > 1 and not agnostic:
        raise ValueError("an ensemble of orders needs agnostic=True, a network that serves all of them")
    network: Network = DeepNADE(width, hidden, depth, dropout) if agnostic else NADE(width, depth)
    order: OrderPolicy = RandomMasks() if agnostic else FixedOrder("raster")
    decoder: Decoder = OrderEnsemble(ensemble) if ensemble > 1 else Ancestral()
    return Model(
        by_modality(data, length),
        order,
        network,
        fitting("categorical"),
        objective=MaskedLikelihood("uniform", "bound") if agnostic else Likelihood(),
        decoder=decoder,
        training=dict(lr=2e-3, batch_size=128),
    )
