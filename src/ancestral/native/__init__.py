"""Kernels in C for decoding on the processor, with PyTorch in their place where they were not compiled.

Nothing is loaded before it is used.
"""

from ancestral.native.library import available, instructions, restricted, without
from ancestral.native.linear import (
    dequantise,
    few,
    linear,
    linear_f32,
    linear_quantised,
    pack_q4,
    pack_q8,
    unpack_q4,
)

__all__ = [
    "available",
    "dequantise",
    "few",
    "instructions",
    "linear",
    "linear_f32",
    "linear_quantised",
    "pack_q4",
    "pack_q8",
    "restricted",
    "unpack_q4",
    "without",
]
