"""RAR's transformer (bytedance/1d-tokenizer, ``modeling.rar.RAR``)."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ancestral.decoding.decoders import Ancestral
from ancestral.errors import DataError
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks.modulated import ModulatedTransformer
from ancestral.order import RandomOrders
from ancestral.published.weights import filled, fitting_tokenizer, pick, renamed, section
from ancestral.space import Space
from ancestral.tokenizers import Tokenizer

AGAINST = "its formulas written out again, at random weights"
CHECKED = "logits in raster and in random orders, guided greedy samples with the scale's power"

_RULES = (
    (r"^attn_mask$", ""),
    (r"^blocks\.(\d+)\.norm(\d)\.", r"network.blocks.\1.norm\2."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"network.blocks.\1.qkv."),
    (r"^blocks\.(\d+)\.attn\.q_norm\.", r"network.blocks.\1.query_norm."),
    (r"^blocks\.(\d+)\.attn\.k_norm\.", r"network.blocks.\1.key_norm."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"network.blocks.\1.out."),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"network.blocks.\1.inner."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"network.blocks.\1.outer."),
    (r"^blocks\.(\d+)\.adaLN_modulation\.1\.", r"network.blocks.\1.modulate."),
    (r"^adaln_before_head\.adaLN_modulation\.1\.", "network.modulate."),
    (r"^lm_head\.", "head."),
)


def load(state: dict[str, Tensor], config: dict[str, Any], tokenizer: Tokenizer | None) -> Model:
    """The class-conditional model with the authors' weights, drawn in raster order and guided as they do.

    One table embeds codes, the mask symbol (not used), classes and the withheld class, in this sequence.

    Args:
        state: under the authors' names.
        config: theirs, of which ``model.generator`` (or the settings themselves) holds ``hidden_size``,
            ``num_hidden_layers``, ``num_attention_heads``, ``intermediate_size``, ``image_seq_len``,
            ``condition_num_classes`` and the sampler's ``guidance_scale_pow``, and ``model.vq_model`` the
            ``codebook_size``.
        tokenizer: from ``load_published("maskgit_vq", ...)``.

    Raises:
        DataError: weights that do not fit.
    """
    settings = section(config, "model", "generator")
    codes = section(config, "model", "vq_model").get("codebook_size", 1024)
    n, classes = settings.get("image_seq_len", 256), settings.get("condition_num_classes", 1000)
    side = math.isqrt(n)
    space = Space((side, side), codes, classes=classes)
    if side * side != n:
        raise DataError(f"image_seq_len={n} is not the number of codes of a square image")
    network = ModulatedTransformer(
        settings["hidden_size"],
        settings["num_hidden_layers"],
        settings["num_attention_heads"],
        hidden=settings["intermediate_size"],
    )
    power = settings.get("guidance_scale_pow", 0.0)
    model = Model(
        fitting_tokenizer(tokenizer, space),
        RandomOrders("raster", anneal=(0.5, 0.75)),
        network,
        Categorical(per_site=False),
        decoder=Ancestral(ramp=float(power)),
    )
    state = dict(state)
    table = pick(state, "embeddings.weight")
    positions = pick(state, "pos_embed")[0]
    tensors = {
        "network.embed.table.weight": table[:codes],
        "network.told.label.weight": table[codes + 1 :],
        "network.summary": pick(state, "cls_token")[0, 0] + positions[0],
        "network.first": positions[1],
        "network.source.weight": positions[2 : 2 + n],
        "network.target.weight": pick(state, "target_aware_pos_embed")[0, 2 : 2 + n],
        "network.place.weight": pick(state, "timesteps_embeddings")[0, : n + 1],
    }
    return filled(model, tensors | renamed(state, _RULES))
