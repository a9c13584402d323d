"""Lossless coding of values under any explicit-order model with finitely many values.

:mod:`choosers` couples the traversal to a range coder, :mod:`container` is the byte format, :mod:`prints` the
fingerprints of a model and of its numerical results, :mod:`codec` codes items and :mod:`streams` long streams.
"""

from __future__ import annotations

from ancestral.coding.codec import Decoded, decode, decode_values, encode_values
from ancestral.coding.container import Container, claimed, pack, unpack
from ancestral.coding.streams import decode_stream, decode_stream_set, encode_stream, encode_stream_set
from ancestral.decoding.streams import stream_log_prob

__all__ = [
    "Container",
    "Decoded",
    "claimed",
    "decode",
    "decode_stream",
    "decode_stream_set",
    "decode_values",
    "encode_stream",
    "encode_stream_set",
    "encode_values",
    "pack",
    "stream_log_prob",
    "unpack",
]
