"""Text as bytes, and as byte-pair codes trained on the spot."""

from __future__ import annotations

from typing import Any

import numpy as np

from ancestral.data.base import Dataset
from ancestral.data.text import Text
from ancestral.errors import DataError
from ancestral.tokenizers.base import SequenceTokenizer


class _Characters(SequenceTokenizer):
    """Shared by tokenizers of text: an item is as large as its bytes."""

    def size(self, dataset: Dataset, item: int) -> int:
        assert isinstance(dataset, Text)
        return len(dataset.payloads[item])

    def _part(self, content: Any) -> Text:
        return Text([content])


class Bytes(_Characters):
    """Documents as their bytes.

    Args:
        length: sites N; None takes the longest training document (not streaming).
        streaming: documents of any length, seen through windows of ``length`` bytes; otherwise documents of
            at most ``length`` bytes, ended and padded by symbol 256.

    Shapes:
        values: int64 ``[n, length]`` of 256 (streaming) or 257 sizes.
    """

    modality = "text"
    alphabet = 256

    def __init__(self, length: int | None = 256, streaming: bool = True) -> None:
        self.length = length
        self.streaming = streaming
        self.binary = False

    def fit(self, dataset: Dataset) -> Bytes:
        self._expect(dataset)
        assert isinstance(dataset, Text)
        self.binary = dataset.binary
        self._settle(dataset, [len(p) for p in dataset.payloads])
        return self

    def _ids(self, dataset: Dataset) -> list[np.ndarray]:
        assert isinstance(dataset, Text)
        return [np.frombuffer(p, dtype=np.uint8).astype(np.int64) for p in dataset.payloads]

    def spelling(self) -> list[bytes]:
        """The bytes of every symbol."""
        return [bytes([b]) for b in range(256)]

    def _items(self, rows: list[np.ndarray]) -> Text:
        for i, row in enumerate(rows):
            if len(row) and (row.min() < 0 or row.max() > 255):
                raise DataError(f"item {i} has the value {int(row.max())}, which is no byte")
        return Text([row.astype(np.uint8).tobytes() for row in rows], self.binary)

    def state(self) -> dict[str, Any]:
        return self._base_state() | {
            "length": self.length,
            "streaming": self.streaming,
            "binary": self.binary,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.length, self.streaming, self.binary = state["length"], state["streaming"], state["binary"]
        self._load_base(state)


_PIECE = 1 << 16  # characters per call of the encoder, so that huge documents need little memory


def byte_characters() -> dict[str, int]:
    """The printable character that stands for every byte in byte-level BPE (Radford et al. 2019, GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}


class BPE(_Characters):
    """Byte-level byte-pair codes, learned by :meth:`fit`.

    Sennrich et al. 2016, arXiv:1508.07909; on bytes: Radford et al. 2019 (GPT-2).

    Every text has a code, since all 256 bytes are in the vocabulary; decoding gives the exact text back.

    Args:
        vocab: codes to learn, at least 256; fewer are used where the text does not support them.
        length: sites N; None takes the longest training document (not streaming).
        streaming: as in :class:`Bytes`; otherwise the last symbol ends and pads.

    Shapes:
        values: int64 ``[n, length]``.
    """

    modality = "text"

    def __init__(self, vocab: int = 4096, length: int | None = 256, streaming: bool = True) -> None:
        if vocab < 256:
            raise DataError(f"vocab={vocab} leaves bytes without a code; give at least 256")
        self.vocab = vocab
        self.length = length
        self.streaming = streaming
        self._codec: Any = None

    def fit(self, dataset: Dataset) -> BPE:
        self._expect(dataset)
        assert isinstance(dataset, Text)
        from tokenizers import Tokenizer as Codec
        from tokenizers import decoders, models, pre_tokenizers, trainers

        codec = Codec(models.BPE())
        codec.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        codec.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab,
            initial_alphabet=sorted(byte_characters()),
            show_progress=False,
        )
        codec.train_from_iterator((piece for text in self._texts(dataset) for piece in _pieces(text)), trainer)
        self._adopt(codec)
        lengths = [len(ids) for ids in self._ids(dataset)] if self.length is None else []
        self._settle(dataset, lengths)
        return self

    def _adopt(self, codec: Any) -> None:
        self._codec = codec
        self.alphabet = codec.get_vocab_size()
        table = byte_characters()
        words = sorted(codec.get_vocab().items(), key=lambda entry: entry[1])
        self._spelling = [bytes(table[c] for c in word) for word, _ in words]

    def _texts(self, dataset: Text) -> list[str]:
        texts = []
        for i, payload in enumerate(dataset.payloads):
            try:
                texts.append(payload.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise DataError(
                    f"document {i} is not UTF-8 text (offset {error.start}); use the Bytes tokenizer for raw bytes"
                ) from error
        return texts

    def _ids(self, dataset: Dataset) -> list[np.ndarray]:
        assert isinstance(dataset, Text)
        self._require_codec()
        rows = []
        for text in self._texts(dataset):
            batch = self._codec.encode_batch_fast(_pieces(text), add_special_tokens=False)
            rows.append(np.array([i for piece in batch for i in piece.ids], dtype=np.int64))
        return rows

    def spelling(self) -> list[bytes]:
        """The bytes of every symbol."""
        self._require_codec()
        return list(self._spelling)

    def _require_codec(self) -> None:
        if self._codec is None:
            raise DataError("the tokenizer has not seen any text; call fit(dataset) first")

    def _items(self, rows: list[np.ndarray]) -> Text:
        for i, row in enumerate(rows):
            if len(row) and (row.min() < 0 or row.max() >= self.alphabet):
                raise DataError(f"item {i} has the value {int(row.max())}, beyond the {self.alphabet} codes")
        return Text([b"".join(self._spelling[i] for i in row) for row in rows], binary=False)

    def state(self) -> dict[str, Any]:
        return self._base_state() | {
            "vocab": self.vocab,
            "length": self.length,
            "streaming": self.streaming,
            "codec": None if self._codec is None else self._codec.to_str(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        from tokenizers import Tokenizer as Codec

        self.vocab, self.length, self.streaming = state["vocab"], state["length"], state["streaming"]
        self._codec = None
        if state["codec"] is not None:
            self._adopt(Codec.from_str(state["codec"]))
        self._load_base(state)


def _pieces(text: str) -> list[str]:
    """Cut a long text, after a newline where there is one nearby, into pieces for the encoder."""
    pieces, start = [], 0
    while start < len(text):
        end = min(start + _PIECE, len(text))
        if end < len(text):
            newline = text.rfind("\n", start, end)
            end = newline + 1 if newline > start + _PIECE // 2 else end
        pieces.append(text[start:end])
        start = end
    return pieces
