"""MAR's variational autoencoder (LTH14/mar, ``models.vae.AutoencoderKL``)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ancestral.published.autoencoders import assemble, named
from ancestral.tokenizers import Tokenizer
from ancestral.tokenizers.learned import KL, Convolutional

AGAINST = "outputs of the authors' code"
CHECKED = "moments, divergence, images decoded from latents"

SCALE = 0.2325
"""What MAR multiplies latents by before it models them."""


def load(state: dict[str, Tensor], config: dict[str, Any], tokenizer: Tokenizer | None = None) -> Tokenizer:
    """The tokenizer with the authors' weights; values are posterior means, scaled as MAR scales its samples.

    Args:
        state: under the authors' names.
        config: ``embed_dim`` and ``ch_mult``; ``ch``, ``num_res_blocks`` and ``resolution``, which the published class
            fixes at 128, 2 and 256; ``image_size``, by default the resolution; and MAR's ``patch_size``, the side of
            the squares of latents that are one token.
        tokenizer: not used.
    """
    multipliers = tuple(config.get("ch_mult", (1, 1, 2, 2, 4)))
    quantiser = KL(config["embed_dim"], fold=config.get("patch_size", 1))
    quantiser.scale.fill_(SCALE)
    backbone = Convolutional(
        config.get("ch", 128),
        multipliers,
        blocks=config.get("num_res_blocks", 2),
        patch=1,
        # At a nominal resolution of 16, which is the encoder's last; the decoder has none but in the middle.
        attention=True,
        attention_back=False,
        kernel=1,
    )
    rules = ((r"^loss\..*$", ""),)
    tensors = named(state, len(multipliers), rules)
    tensors["quantiser.scale"] = quantiser.scale
    return assemble(quantiser, backbone, config.get("image_size", config.get("resolution", 256)), tensors)
