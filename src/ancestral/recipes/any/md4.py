"""MD4: masked diffusion, simplified."""

from __future__ import annotations

from ancestral.decoding.unmasking import Unmasking
from ancestral.heads.fitting import fitting
from ancestral.model import Model
from ancestral.networks import MaskedTransformer
from ancestral.objectives import AbsorbingDiffusion, SymbolSchedules
from ancestral.order import RandomMasks
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import by_modality


@recipe(
    "md4",
    title="Simplified and Generalized Masked Diffusion for Discrete Data",
    paper="arXiv:2406.04329",
    authors="Shi, Han, Wang, Doucet, Titsias (2024)",
    differs_from="ardm",
    tiny=dict(width=16, depth=2, heads=2, dropout=0.0, passes=8),
    toy="grid",
    claim=Claim("the continuous-time bound does not depend on the schedule; cosine masking samples best"),
)
def md4(
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    dropout: float = 0.1,
    alpha: str = "cosine",
    passes: int = 64,
    data: str = "images",
    length: int | None = None,
) -> Model:
    """Hide each site with a chance that grows in time; learn what was there; reveal sites in reversed time.

    At time t a site is still visible with probability alpha(t). The negative evidence bound is
    ``integral of -alpha'(t) / (1 - alpha(t)) * E[sum of -log mu(x_i | visible), i hidden] dt``, a weighted
    cross-entropy whose value no schedule changes. Times are spread evenly over a batch (low discrepancy).

    Sampling reveals every hidden site between t and s with chance ``(alpha_s - alpha_t) / (1 - alpha_t)``, in
    ``passes`` passes. Exact scores are those of one fixed random order, which the same network gives in N passes;
    ``log_prob(bound=k)`` averages over random orders and is the discretised bound.

    ``alpha="learned"`` is GenMD4: every symbol has an exponent w of its own, a site that holds v stays visible with
    probability ``1 - t ** w_v``, and the exponents are trained with the network, by the score function with two
    maskings per item. Unlike the paper's, the network is not told the time.

    Reference:
        Shi, Han, Wang, Doucet, Titsias. Simplified and generalized masked diffusion for discrete data. 2024,
        arXiv:2406.04329.

    Args:
        width, depth, heads, dropout: of the bidirectional transformer.
        alpha: "cosine" or "linear", the schedule of masking; "learned", one per symbol.
        passes: of the sampler.
        data: modality: images, table, sequences, or text in items of at most ``length`` bytes.
        length: for text and sequences.
    """
    if alpha not in ("cosine", "linear", "learned"):
        raise ValueError(f"alpha={alpha!r} is unknown; choose cosine, linear or learned")
    objective = SymbolSchedules() if alpha == "learned" else AbsorbingDiffusion(alpha)  # type: ignore[arg-type]
    return Model(
        by_modality(data, length),
        RandomMasks(),
        MaskedTransformer(width, depth, heads, dropout),
        fitting("categorical"),
        objective=objective,
        decoder=Unmasking(passes, alpha),  # type: ignore[arg-type]
        training=dict(lr=2e-3, batch_size=128),
    )
