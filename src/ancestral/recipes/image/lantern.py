"""LANTERN: speculative decoding of images, where similar values may stand in for each other."""

from __future__ import annotations

from ancestral.decoding.drafts import EarlyLayers
from ancestral.decoding.relaxed import Lantern
from ancestral.decoding.speculative import Speculative
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.objectives import EarlyExit
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import Pixels


@recipe(
    "lantern",
    title="LANTERN: Accelerating Visual Autoregressive Models with Relaxed Speculative Decoding",
    paper="arXiv:2410.03355",
    authors="Jang, Park, Yang, Jung, Yun, Kundu, Kim, Yang (2024)",
    tiny=dict(width=16, depth=2, draft=1, heads=2, nearest=1),
    toy="grid",
    claim=Claim("relaxed acceptance raises the speed-up of speculative decoding 1.75 times", "speculative_decoding"),
)
def lantern(
    width: int = 128,
    depth: int = 6,
    draft: int = 1,
    ahead: int = 4,
    nearest: int = 4,
    delta: float = 0.1,
    heads: int | None = None,
    dropout: float = 0.0,
) -> Model:
    """Raster prediction of pixels, drawn by relaxed speculative decoding.

    The draft is the network's first layers, trained along with the whole (the paper's is EAGLE's head), and values
    are near each other if the network embeds them so (the paper: if their codes in a VQ codebook are). Samples follow
    the model within a bound per drafted value only; scores and codes are the model's own.

    Reference:
        Jang et al. LANTERN: accelerating visual autoregressive models with relaxed speculative decoding. 2024,
        arXiv:2410.03355.

    Args:
        width, depth, heads, dropout: of the transformer.
        draft: layers of the draft.
        ahead: sites drafted at a time.
        nearest: neighbours that lend a drafted value their probability.
        delta: bound on the total variation of each target so changed.
    """
    return Model(
        Pixels(),
        "raster",
        CausalTransformer(width, depth, heads, dropout),
        Categorical(),
        objective=EarlyExit(draft),
        decoder=Speculative(EarlyLayers(draft), ahead, relax=Lantern(nearest, delta)),
    )
