"""ARDM: autoregressive diffusion."""

from __future__ import annotations

from ancestral.decoding.decoders import Ancestral, Decoder
from ancestral.decoding.parallel import Planned
from ancestral.heads.fitting import fitting
from ancestral.model import Model
from ancestral.networks import MaskedTransformer
from ancestral.objectives import MaskedLikelihood
from ancestral.order import RandomMasks
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import by_modality


@recipe(
    "ardm",
    title="Autoregressive Diffusion Models",
    paper="arXiv:2110.02037",
    authors="Hoogeboom, Gritsenko, Bastings, Poole, van den Berg, Salimans (2021)",
    differs_from="nade",
    tiny=dict(width=16, depth=2, heads=2, dropout=0.0),
    toy="table",
    claim=Claim("steps planned by dynamic programming lose less than equal steps, at far fewer network calls"),
)
def ardm(
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    dropout: float = 0.1,
    passes: int | None = None,
    data: str = "table",
    length: int | None = None,
) -> Model:
    """One step of a random order per item and update, weighed so that its mean is the bound over all orders.

    The bound is ``E_order [sum_t log p(x_order(t) | x_order(<t))]``. One network pass given t - 1 known sites scores
    all N - t + 1 hidden ones, each of which could come next; their mean, times N, is an unbiased estimate (the
    loss of training) when t is uniform on 1 .. N.

    Sampling follows a random order, one site per pass. To take k sites at once costs ``k * L_t``, where L_t is the
    mean loss given t known sites; :meth:`Planned.fit` measures it on held-out values and finds the cheapest way in
    a given number of steps by dynamic programming::

        planned = Planned.fit(model.generator, values, steps=20)
        model.sample(16, decoder=planned)

    Not here: the bit-upscaling variant.

    Reference:
        Hoogeboom, Gritsenko, Bastings, Poole, van den Berg, Salimans. Autoregressive diffusion models. 2021,
        arXiv:2110.02037.

    Args:
        width, depth, heads, dropout: of the bidirectional transformer.
        passes: sample in this many sets of equal size, one network pass each; by default site by site.
        data: modality: table, images, sequences, or text in items of at most ``length`` bytes.
        length: for text and sequences.
    """
    decoder: Decoder = Ancestral(random_orders=True) if passes is None else Planned(passes)
    return Model(
        by_modality(data, length),
        RandomMasks(),
        MaskedTransformer(width, depth, heads, dropout),
        fitting("categorical"),
        objective=MaskedLikelihood("uniform", "bound"),
        decoder=decoder,
        training=dict(lr=2e-3, batch_size=128),
    )
