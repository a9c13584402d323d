"""LARP's video tokenizer (hywang66/LARP, ``models.larp_tokenizer.LARPTokenizer``)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ancestral.errors import DataError
from ancestral.published.autoencoders import assemble
from ancestral.published.weights import pick, renamed
from ancestral.tokenizers import Tokenizer
from ancestral.tokenizers.learned import VQ, Clip

AGAINST = "its formulas written out again, at random weights"
CHECKED = "latents, likeliest codes, clips decoded from codes; learned and fixed positions"

_RULES = (
    (r"^prior_model\..*$", ""),
    (r"^bottleneck\.regularizer\.stochastic_temperature_inv$", ""),
    (r"^(encoder|decoder)\.blocks\.(\d+)\.norm(\d)\.", r"backbone.\1.\2.norm\3."),
    (r"^(encoder|decoder)\.blocks\.(\d+)\.attn\.qkv\.", r"backbone.\1.\2.qkv."),
    (r"^(encoder|decoder)\.blocks\.(\d+)\.attn\.proj\.", r"backbone.\1.\2.out."),
    (r"^(encoder|decoder)\.blocks\.(\d+)\.mlp\.fc1\.", r"backbone.\1.\2.inner."),
    (r"^(encoder|decoder)\.blocks\.(\d+)\.mlp\.fc2\.", r"backbone.\1.\2.outer."),
    (r"^x_embedder\.proj\.", "backbone.read."),
    (r"^bottleneck\.in_linear\.", "backbone.out."),
    (r"^bottleneck\.out_linear\.", "backbone.back."),
    (r"^final_layer\.norm_final\.", "backbone.norm."),
    (r"^final_layer\.linear\.", "backbone.write."),
)


def load(state: dict[str, Tensor], config: dict[str, Any], tokenizer: Tokenizer | None = None) -> Tokenizer:
    """The tokenizer with the authors' weights; a clip is an image here, its frames one below the other.

    A vector's code is the likeliest, as after the authors' ``set_vq_eval_deterministic``. Their networks take and give
    pixels in [0, 1]; the backbone takes them in [-1, 1] like all others, and converts. The prior that the tokenizer was
    trained beside is left out.

    Args:
        state: under the authors' names.
        config: ``bottleneck`` with its ``args``, ``bottleneck_token_num``, ``input_size``, ``frame_num``,
            ``temporal_patch_size``, ``patch_size`` and the same of the decoder, ``in_channels``,
            ``encoder_hidden_size``, ``encoder_num_heads``, ``encoder_depth`` and the same of the decoder; and
            ``norm_eps``, of timm's blocks: 1e-5 (by default) up to timm 1.0.15 or so, later 1e-6.
        tokenizer: not used.

    Raises:
        DataError: settings that no published model has, or weights that do not fit.
    """
    bottleneck = config["bottleneck"]["args"]
    book = bottleneck["regularizer"]["args"]
    if bottleneck.get("norm") not in (None, "none", "no") or bottleneck["regularizer"]["name"] != "vq":
        raise DataError("LARP is loaded with the regularizer vq and norm none only")
    patch, span = config.get("patch_size", 8), config.get("temporal_patch_size", 4)
    if (patch, span) != (config.get("decoder_patch_size", 8), config.get("decoder_temporal_patch_size", 4)):
        raise DataError("LARP is loaded with one patch size for encoder and decoder")
    width, depth, heads = (
        [config.get(f"{part}_{name}", default) for part in ("encoder", "decoder")]
        for name, default in (("hidden_size", 768), ("depth", 6), ("num_heads", 12))
    )
    frames, side, colours = config.get("frame_num", 16), config.get("input_size", 128), config.get("in_channels", 3)
    if frames % span or side % patch:
        raise DataError(
            f"{frames} frames of {side} pixels do not divide into blocks of {span} frames and {patch} pixels"
        )
    backbone = Clip(
        config.get("bottleneck_token_num", 1024),
        patch,
        frames,
        span,
        (width[0], depth[0], heads[0]),
        (width[1], depth[1], heads[1]),
        config.get("norm_eps", 1e-5),
    )
    normalise = book.get("l2_normalized", False)
    quantiser = VQ(book["codebook_size"], bottleneck["bottleneck_dim"], normalise)
    state = dict(state)
    vectors = pick(state, "bottleneck.regularizer.embedding.weight")
    tensors = {"quantiser.book.vectors": F.normalize(vectors, dim=-1) if normalise else vectors}
    for place, (own, axes, kind) in {
        "places": ("encoder_patch_pe", ("encoder_h_embed", "encode_w_embed", "encoder_t_embed"), "encoder_patch"),
        "queries": ("encoder_latent_query_embed", (), "encoder_latent_query"),
        "numbers": ("decoder_latent_pe", (), "decoder_latent"),
        "asked": ("decoder_patch_query_embed", tuple(f"decoder_{a}_embed" for a in "hwt"), "decoder_patch_query"),
    }.items():
        if axes and axes[0] in state:  # learned along every axis
            found = sum(pick(state, name) for name in axes).flatten(1, 3)  # type: ignore[union-attr]
        else:
            found = pick(state, own)
        found = found + state.pop(f"{kind}_token_type_embed", 0.0)
        tensors[f"backbone.{place}"] = found.flatten(0, -2)
    tensors |= renamed(state, _RULES)
    tensors["backbone.read.weight"] = tensors["backbone.read.weight"].flatten(1)
    for name in ("backbone.write.weight", "backbone.write.bias"):  # theirs sort a block by pixels, then colours
        tensors[name] = tensors[name].unflatten(0, (-1, colours)).transpose(0, 1).flatten(0, 1)
    size = (frames * side, side)
    return assemble(quantiser, backbone, size, tensors, ("quantiser.book.count", "quantiser.book.total"), colours)
