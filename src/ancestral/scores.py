"""Log-probabilities with their kind and the number of scalars that they cover."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


class LogProb(np.ndarray):
    """Log-probabilities, float64 ``[n]`` in nats, one per item.

    Attributes:
        kind: "exact", "lower_bound" or "estimate".
        scalars: int64 ``[n]``: numbers that each item consists of (pixels, bytes, cells).
        per_site: float64 ``[n, N]`` where asked for, else None: the terms of the sum.
        of: "items", or with a lossy tokenizer "codes" or "latents": the probability is that of the item's codes (for
            latents a density), and bits per dimension are bits per code.
    """

    kind: str
    scalars: np.ndarray
    per_site: np.ndarray | None
    of: str

    def __new__(
        cls,
        values: Any,
        kind: str = "exact",
        scalars: Any = None,
        per_site: np.ndarray | None = None,
        of: str = "items",
    ) -> LogProb:
        out = np.asarray(values, dtype=np.float64).view(cls)
        out.kind, out.per_site, out.of = kind, per_site, of
        out.scalars = np.ones(out.shape, np.int64) if scalars is None else np.asarray(scalars)
        return out

    def __array_finalize__(self, other: Any) -> None:
        self.kind = getattr(other, "kind", "exact")
        self.scalars = getattr(other, "scalars", np.ones(0, np.int64))
        self.per_site = getattr(other, "per_site", None)
        self.of = getattr(other, "of", "items")

    def bits_per_dim(self) -> float:
        """Mean bits per scalar over all items."""
        return float(-np.asarray(self).sum() / math.log(2) / max(int(self.scalars.sum()), 1))
