"""VAR's transformer (FoundationVision/VAR, ``models.var.VAR``)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ancestral.decoding.decoders import Ancestral
from ancestral.errors import DataError
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks.scales import ScaleTransformer
from ancestral.order import FixedOrder, Order
from ancestral.published.weights import filled, fitting_tokenizer, renamed
from ancestral.tokenizers import Tokenizer

AGAINST = "outputs of the authors' code"
CHECKED = "logits, guided greedy codes and images; plain, shared modulation, without cosine attention"

_RULES = (
    (r"^(?:attn_bias_for_masking|lvl_1L|blocks\.\d+\.attn\.zero_k_bias)$", ""),
    (r"^class_emb\.", "network.classes."),
    (r"^pos_start$", "network.start_position"),
    (r"^pos_1LC$", "network.position"),
    (r"^lvl_embed\.", "network.level."),
    (r"^word_embed\.", "network.word."),
    (r"^blocks\.(\d+)\.attn\.mat_qkv\.", r"network.blocks.\1.qkv."),
    (r"^blocks\.(\d+)\.attn\.q_bias$", r"network.blocks.\1.query_bias"),
    (r"^blocks\.(\d+)\.attn\.v_bias$", r"network.blocks.\1.value_bias"),
    (r"^blocks\.(\d+)\.attn\.scale_mul_1H11$", r"network.blocks.\1.sharpness"),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"network.blocks.\1.out."),
    (r"^blocks\.(\d+)\.ffn\.fc1\.", r"network.blocks.\1.inner."),
    (r"^blocks\.(\d+)\.ffn\.fc2\.", r"network.blocks.\1.outer."),
    (r"^blocks\.(\d+)\.ada_lin\.1\.", r"network.blocks.\1.modulate."),
    (r"^blocks\.(\d+)\.ada_gss$", r"network.blocks.\1.offset"),
    (r"^shared_ada_lin\.1\.", "network.modulate."),
    (r"^head_nm\.ada_lin\.1\.", "network.last."),
    (r"^head\.", "head."),
)


def load(state: dict[str, Tensor], config: dict[str, Any], tokenizer: Tokenizer | None) -> Model:
    """The model with the authors' weights, guided as they do: the scale grows from 0 at the first map.

    Args:
        state: under the authors' names.
        config: ``num_classes``, ``depth``, ``embed_dim``, ``num_heads``, ``mlp_ratio``, ``shared_aln``,
            ``attn_l2_norm``, ``patch_nums``.
        tokenizer: the one that ``load_published("var_vqvae", ...)`` gives; the transformer reads codes by its
            codebook.

    Raises:
        DataError: no tokenizer.
    """
    if tokenizer is None:
        raise DataError("var reads codes by its tokenizer's codebook; give tokenizer=load_published('var_vqvae', ...)")
    scales = tuple(config["patch_nums"])
    network = ScaleTransformer(
        config["embed_dim"],
        config["depth"],
        config["num_heads"],
        config.get("mlp_ratio", 4.0),
        cosine=config.get("attn_l2_norm", False),
        shared=config.get("shared_aln", False),
    )
    space = tokenizer.space.replace(classes=config["num_classes"])
    model = Model(
        fitting_tokenizer(tokenizer, space),
        FixedOrder(lambda space: Order.scales(scales)),
        network,
        Categorical(per_site=False),
        decoder=Ancestral(ramp="sets"),
    )
    tensors = renamed(state, _RULES)
    for name in list(tensors):
        if name.endswith(("start_position", "network.position", ".sharpness")):
            tensors[name] = tensors[name][0]
        elif name.endswith(".offset"):
            tensors[name] = tensors[name][0, 0]
    return filled(model, tensors, ("network.embed.", "network.pyramids."))
