"""VAR's multi-scale residual autoencoder (FoundationVision/VAR, ``models.vqvae.VQVAE``)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ancestral.published.autoencoders import assemble, named
from ancestral.tokenizers import Tokenizer
from ancestral.tokenizers.learned import Convolutional, MultiScaleVQ

AGAINST = "outputs of the authors' code"
CHECKED = "latents, codes and partial sums of every scale, images decoded from each"


def load(state: dict[str, Tensor], config: dict[str, Any], tokenizer: Tokenizer | None = None) -> Tokenizer:
    """The tokenizer with the authors' weights.

    Args:
        state: under the authors' names.
        config: ``vocab_size``, ``z_channels``, ``ch``, ``quant_conv_ks``, ``quant_resi``, ``share_quant_resi``,
            ``using_znorm``, ``v_patch_nums``; and ``ch_mult`` and ``num_res_blocks``, which the published class fixes
            at (1, 1, 2, 2, 4) and 2.
        tokenizer: not used.
    """
    multipliers = tuple(config.get("ch_mult", (1, 1, 2, 2, 4)))
    scales = tuple(config["v_patch_nums"])
    quantiser = MultiScaleVQ(
        config["vocab_size"],
        config["z_channels"],
        scales,
        normalise=config.get("using_znorm", False),
        # 0 means one convolution per scale, which is what as many ticks as scales amount to.
        convolutions=config.get("share_quant_resi", 4) or config.get("default_qresi_counts") or len(scales),
        share=abs(config.get("quant_resi", 0.5)),
    )
    backbone = Convolutional(
        config["ch"],
        multipliers,
        blocks=config.get("num_res_blocks", 2),
        patch=1,
        attention=True,
        kernel=config.get("quant_conv_ks", 3),
    )
    rules = (
        (r"^quantize\.embedding\.weight$", "quantiser.book.vectors"),
        (r"^quantize\.quant_resi\.(?:qresi_ls\.|qresi\.)?(\d+)\.", r"quantiser.smooth.\1."),
        (r"^quantize\.quant_resi\.qresi\.", "quantiser.smooth.0."),
        (r"^quantize\.ema_vocab_hit_SV$", ""),
    )
    side = scales[-1] * 2 ** (len(multipliers) - 1)
    tensors = named(state, len(multipliers), rules)
    return assemble(quantiser, backbone, side, tensors, ("quantiser.book.count", "quantiser.book.total"))
