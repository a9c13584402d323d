"""The autoencoder that VQGAN's descendants share, under its usual parameter names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ancestral.published.weights import fill
from ancestral.tokenizers.learned import Autoencoder, Backbone, Quantiser

_COMMON = (
    (r"\.nin_shortcut\.", ".shortcut."),
    (r"\.proj_out\.", ".out."),
    (r"^(encoder|decoder)\.conv_in\.", r"backbone.\1.first."),
    (r"^(encoder|decoder)\.norm_out\.", r"backbone.\1.norm."),
    (r"^(encoder|decoder)\.conv_out\.", r"backbone.\1.last."),
    (r"^(encoder|decoder)\.mid\.(?:block_1|0)\.", r"backbone.\1.middle.0."),
    (r"^(encoder|decoder)\.mid\.(?:attn_1|1)\.", r"backbone.\1.middle.1."),
    (r"^(encoder|decoder)\.mid\.(?:block_2|2)\.", r"backbone.\1.middle.2."),
    (r"^encoder\.(?:down|conv_blocks)\.(\d+)\.(?:block|res)\.", r"backbone.encoder.levels.\1.blocks."),
    (r"^encoder\.(?:down|conv_blocks)\.(\d+)\.attn\.", r"backbone.encoder.levels.\1.attention."),
    (r"^encoder\.(?:down|conv_blocks)\.(\d+)\.downsample\.conv\.", r"backbone.encoder.down.\1."),
    (r"^quant_conv\.", "backbone.before."),
    (r"^post_quant_conv\.", "backbone.after."),
)
PLAIN = (
    (r"\.nin_shortcut\.", ".shortcut."),
    (r"\.conv_in\.", ".first."),
    (r"\.norm_out\.", ".norm."),
    (r"\.conv_out\.", ".last."),
    (r"\.mid\.(\d+)\.", r".middle.\1."),
    (r"\.down\.(\d+)\.block\.", r".levels.\1.blocks."),
)
"""Rules for the encoder and decoder of MaskGIT's tokenizer in its PyTorch form, but for ``decoder.up``."""


def plain_levels(state: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """MaskGIT's weights with the decoder's levels counted from the coarsest, as here."""

    def place(found: re.Match[str]) -> str:
        level = levels - 1 - int(found[1])
        return f"decoder.up.{level}." if found[2] == "upsample_conv" else f"decoder.levels.{level}.blocks."

    return {re.sub(r"decoder\.up\.(\d+)\.(block|upsample_conv)\.", place, k): v for k, v in state.items()}


def named(state: Mapping[str, Tensor], levels: int, quantiser: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """The weights under the names of :class:`Autoencoder`'s tensors.

    Args:
        state: encoder, decoder and quantiser under the names of taming-transformers, latent-diffusion, VAR, MAR or
            LlamaGen.
        levels: resolutions; ``decoder.up`` counts them from the finest, the levels here from the coarsest.
        quantiser: rules for the quantiser's own names.
    """
    out: dict[str, Tensor] = {}
    split: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        name = re.sub(r"^decoder\.up\.(\d+)\.", lambda m: f"decoder.conv_blocks.{levels - 1 - int(m[1])}.", name)
        name = re.sub(r"^decoder\.conv_blocks\.(\d+)\.(?:block|res)\.", r"backbone.decoder.levels.\1.blocks.", name)
        name = re.sub(r"^decoder\.conv_blocks\.(\d+)\.attn\.", r"backbone.decoder.levels.\1.attention.", name)
        name = re.sub(r"^decoder\.conv_blocks\.(\d+)\.upsample\.conv\.", r"backbone.decoder.up.\1.", name)
        for pattern, to in (*_COMMON, *quantiser):
            name = re.sub(pattern, to, name)
        apart = re.fullmatch(r"(.*\.)([qkv])\.(weight|bias)", name)
        if apart:
            split.setdefault(f"{apart[1]}qkv.{apart[3]}", {})[apart[2]] = tensor
        elif name:
            out[name] = tensor
    return out | {name: torch.cat([parts[letter] for letter in "qkv"]) for name, parts in split.items()}


def assemble(
    quantiser: Quantiser,
    backbone: Backbone,
    side: int | tuple[int, int],
    tensors: Mapping[str, Tensor],
    keep: tuple[str, ...] = (),
    colours: int = 3,
) -> Autoencoder:
    """A trained tokenizer of images from parts and weights.

    Args:
        quantiser, backbone: not built.
        side: height and width of the images, one number if they are the same.
        tensors: from :func:`named`.
        keep: prefixes of the quantiser's tensors that were not published.
        colours: channels of the images.
    """
    tokenizer = Autoencoder(quantiser, backbone)
    height, width = (side, side) if isinstance(side, int) else side
    tokenizer.shape = (height, width, colours)
    tokenizer._build(0)
    fill(tokenizer._modules(), tensors, keep)
    tokenizer.fitted = True
    return tokenizer
