"""Dropout whose random bits are cheap on a processor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_LOWEST = torch.iinfo(torch.int64).min


def dropped(x: Tensor, share: float, training: bool) -> Tensor:
    """``x``, in training with a ``share`` of its entries set to zero and the others scaled up to the same mean.

    Dropout (Srivastava et al. 2014) spends most of its time on random numbers when a layer is small. On a processor
    an entry takes eight random bits rather than a number of its own, so the share is rounded to a 256th.

    Args:
        x: float, any shape.
        share: of the entries, in [0, 1).
        training: whether to drop any.
    """
    if not training or share == 0:
        return x
    cut = min(max(round(share * 256), 1), 255)
    if x.device.type != "cpu" or x.numel() == 0:
        return F.dropout(x, share, training)
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(_LOWEST, None)
    kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= cut
    return x * (kept * torch.tensor(256 / (256 - cut), dtype=x.dtype))
