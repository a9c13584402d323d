"""MaskGIT's tokenizer in PyTorch (bytedance/1d-tokenizer, ``modeling.titok.PretrainedTokenizer``)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ancestral.published.autoencoders import PLAIN, assemble, plain_levels
from ancestral.published.weights import renamed
from ancestral.tokenizers import Tokenizer
from ancestral.tokenizers.learned import VQ, Convolutional

AGAINST = "its formulas written out again, at random weights"
CHECKED = "latents, codes, images decoded from codes"


def load(state: dict[str, Tensor], config: dict[str, Any], tokenizer: Tokenizer | None = None) -> Tokenizer:
    """The tokenizer with the authors' weights.

    Their networks take and give images in [0, 1]; the backbone takes them in [-1, 1] like all others, and converts.

    Args:
        state: under the authors' names.
        config: ``hidden_channels``, ``channel_mult``, ``num_res_blocks``, ``z_channels``, ``resolution`` and
            ``num_embeddings``, which the published class fixes at 128, (1, 1, 2, 2, 4), 2, 256, 256 and 1,024;
            ``image_size``, by default the resolution.
        tokenizer: not used.
    """
    multipliers = tuple(config.get("channel_mult", (1, 1, 2, 2, 4)))
    quantiser = VQ(config.get("num_embeddings", 1024), config.get("z_channels", 256), normalise=False)
    backbone = Convolutional(
        config.get("hidden_channels", 128),
        multipliers,
        blocks=config.get("num_res_blocks", 2),
        patch=1,
        kernel=0,
        plain=True,
    )
    rules = (
        *PLAIN,
        (r"^(encoder|decoder)\.", r"backbone.\1."),
        (r"^quantize\.embedding\.weight$", "quantiser.book.vectors"),
    )
    tensors = renamed(plain_levels(state, len(multipliers)), rules)
    size = config.get("image_size", config.get("resolution", 256))
    return assemble(quantiser, backbone, size, tensors, ("quantiser.book.count", "quantiser.book.total"))
