"""Data to values at sites and back."""

from __future__ import annotations

from ancestral.errors import DataError
from ancestral.tokenizers.audio import MuLaw
from ancestral.tokenizers.base import SequenceTokenizer, Tokenizer
from ancestral.tokenizers.columns import Columns
from ancestral.tokenizers.learned import Autoencoder
from ancestral.tokenizers.pixels import Pixels
from ancestral.tokenizers.symbols import Symbols
from ancestral.tokenizers.text import BPE, Bytes
from ancestral.tokenizers.vocabulary import Vocabulary

__all__ = [
    "Autoencoder",
    "BPE",
    "Bytes",
    "Columns",
    "MuLaw",
    "Pixels",
    "SequenceTokenizer",
    "Symbols",
    "Tokenizer",
    "Vocabulary",
    "by_modality",
    "by_tokens",
]


def by_modality(modality: str, length: int | None = None) -> Tokenizer:
    """The plain, lossless tokenizer of whole items of a modality.

    Args:
        modality: images, table, sequences, text, bytes or audio.
        length: most symbols per item for texts and sequences; by default that of the longest training item.

    Raises:
        DataError: unknown modality.
    """
    if modality == "images":
        return Pixels()
    if modality == "table":
        return Columns()
    if modality == "sequences":
        return Symbols(length)
    if modality in ("text", "bytes"):
        return Bytes(length, streaming=False)
    if modality == "audio":
        return MuLaw(length=length, streaming=False)
    raise DataError(f"modality {modality!r} is not known; choose images, table, sequences, text, bytes or audio")


def by_tokens(tokens: str, length: int | None = None, vocab: int = 4096, streaming: bool = True) -> SequenceTokenizer:
    """The tokenizer of a language model.

    Args:
        tokens: bytes, bpe (learned from the data) or symbols (sequences, always with a stop symbol).
        length: tokens in a window, or at most in an item.
        vocab: byte-pair codes to learn.
        streaming: text as one stream of any length; otherwise every document is an item of its own.

    Raises:
        ValueError: unknown tokens.
    """
    if tokens == "bytes":
        return Bytes(length, streaming)
    if tokens == "bpe":
        return BPE(vocab, length, streaming)
    if tokens == "symbols":
        return Symbols(length)
    raise ValueError(f"tokens={tokens!r} is unknown; choose bytes, bpe or symbols")
