"""Fewer bits: weights and kept keys and values on coarse grids."""

from ancestral.quantisation.caches import Dropping, Full, Gear, keep, kept_bytes
from ancestral.quantisation.weights import (
    FineQuant,
    Quantised,
    QuantisedEmbedding,
    QuantisedLinear,
    rounded,
    stored_bytes,
)

__all__ = [
    "Dropping",
    "FineQuant",
    "Full",
    "Gear",
    "Quantised",
    "QuantisedEmbedding",
    "QuantisedLinear",
    "keep",
    "kept_bytes",
    "rounded",
    "stored_bytes",
]
