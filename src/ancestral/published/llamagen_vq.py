"""LlamaGen's image tokenizer (FoundationVision/LlamaGen, ``tokenizer.tokenizer_image.vq_model.VQModel``)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ancestral.published.autoencoders import assemble, named
from ancestral.tokenizers import Tokenizer
from ancestral.tokenizers.learned import VQ, Convolutional

AGAINST = "its formulas written out again, at random weights"
CHECKED = "latents, codes on the sphere, images decoded from codes"


def load(state: dict[str, Tensor], config: dict[str, Any], tokenizer: Tokenizer | None = None) -> Tokenizer:
    """The tokenizer with the authors' weights.

    Args:
        state: under the authors' names.
        config: ``codebook_size``, ``codebook_embed_dim``, ``codebook_l2_norm``, ``encoder_ch_mult``, ``z_channels``;
            ``ch`` and ``num_res_blocks``, which the published class fixes at 128 and 2; and ``image_size``.
        tokenizer: not used.
    """
    multipliers = tuple(config.get("encoder_ch_mult", (1, 1, 2, 2, 4)))
    normalise = config.get("codebook_l2_norm", True)
    quantiser = VQ(config.get("codebook_size", 16384), config.get("codebook_embed_dim", 8), normalise)
    backbone = Convolutional(
        config.get("ch", 128),
        multipliers,
        blocks=config.get("num_res_blocks", 2),
        patch=1,
        attention=True,
        kernel=1,
        between=config.get("z_channels", 256),
    )
    rules = (
        (r"^quantize\.embedding\.weight$", "quantiser.book.vectors"),
        (r"^quantize\.codebook_used$", ""),
    )
    tensors = named(state, len(multipliers), rules)
    if normalise:
        tensors["quantiser.book.vectors"] = F.normalize(tensors["quantiser.book.vectors"], dim=-1)
    keep = ("quantiser.book.count", "quantiser.book.total")
    return assemble(quantiser, backbone, config.get("image_size", 256), tensors, keep)
