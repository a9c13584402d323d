"""The vocabulary of a published language model."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ancestral.data.base import Dataset
from ancestral.data.text import Text
from ancestral.errors import DataError
from ancestral.tokenizers.text import BPE, byte_characters

_SPACE = "\u2581"  # stands for a space in SentencePiece's pieces
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Vocabulary(BPE):
    """Byte-pair codes that came with a model's weights; texts are streams seen through a window.

    Byte-level codes (GPT-2, Llama 3, SmolLM2) and SentencePiece's with a byte for what has no piece (Llama 1 and 2)
    are told apart by how the pieces are written. A text is read as plain text: the vocabulary's control symbols
    (``<|endoftext|>``) stand for themselves only with ``specials``.

    Args:
        length: sites N of a window.

    Attributes:
        begin: symbol whose embedding is the input before the first symbol.
        ends: symbols that end a text when they are drawn.
        specials: read control symbols in texts as such.

    Shapes:
        values: int64 ``[n, length]``.
    """

    def __init__(self, length: int | None = 1024) -> None:
        super().__init__(256, length, True)
        self.begin = 0
        self._specials = False

    @property
    def specials(self) -> bool:
        """Whether control symbols in texts are read as such rather than as plain text."""
        return self._specials

    @specials.setter
    def specials(self, value: bool) -> None:
        self._specials = value
        if self._codec is not None:
            self._codec.encode_special_tokens = not value

    def adopt(self, codec: str, size: int, begin: int, ends: tuple[int, ...]) -> None:
        """Take a vocabulary over.

        Args:
            codec: JSON of the ``tokenizers`` library (``tokenizer.json``).
            size: symbols that the model knows; those without a piece are spelled as nothing.
            begin, ends: see the attributes.

        Raises:
            DataError: not such JSON, or more pieces than symbols.
        """
        from tokenizers import Tokenizer as Codec

        try:
            found = Codec.from_str(codec)
        except Exception as error:  # the library raises a bare Exception
            raise DataError(f"the model's tokenizer cannot be read: {str(error)[:200]}") from error
        self.alphabet, self.begin, self.ends = size, begin, ends
        self._adopt(found)
        self._settle(Text(["x"]), [])

    def fit(self, dataset: Dataset) -> Vocabulary:
        self._expect(dataset)
        if self._codec is None:
            raise DataError('a vocabulary is not learned but comes with a model\'s weights; use tokens="bpe"')
        return self

    def _adopt(self, codec: Any) -> None:
        codec.no_truncation()
        codec.no_padding()
        codec.encode_special_tokens = not self._specials
        self._codec = codec
        words = codec.get_vocab(with_added_tokens=True)
        if words and max(words.values()) >= self.alphabet:
            raise DataError(
                f"the tokenizer has the symbol {max(words.values())}, the model knows {self.alphabet} only; they do "
                "not belong together"
            )
        added = {i: token.content for i, token in codec.get_added_tokens_decoder().items()}
        plain = {i: word for word, i in words.items() if i not in added}
        table = byte_characters()
        self._byte_level = all(c in table for word in plain.values() for c in word if not word.startswith("<|"))
        self._spelling = [b""] * self.alphabet
        for i, word in plain.items():
            self._spelling[i] = _spell(word, table if self._byte_level else None)
        for i, content in added.items():
            self._spelling[i] = content.encode("utf-8")
        # SentencePiece puts a space before the first word, which is not part of the text.
        start = codec.encode("x", add_special_tokens=False).ids
        self._lead = len(b"".join(self._spelling[i] for i in start)) - 1

    def _ids(self, dataset: Dataset) -> list[np.ndarray]:
        assert isinstance(dataset, Text)
        if self._byte_level:
            rows = super()._ids(dataset)
        else:  # a text cut into pieces would be given a space before each
            self._require_codec()
            texts = self._texts(dataset)
            batch = self._codec.encode_batch_fast(texts, add_special_tokens=False)
            rows = [np.array(part.ids, dtype=np.int64) for part in batch]
        for i, (row, payload) in enumerate(zip(rows, dataset.payloads, strict=True)):
            if self._text(row) != payload:
                raise DataError(
                    f"document {i} does not come back from this model's tokenizer, which changes characters; the "
                    "model has no probability for that text: normalise it first (Unicode NFC)"
                )
        return rows

    def _text(self, row: np.ndarray) -> bytes:
        spelled = b"".join(self._spelling[i] for i in row)
        return spelled[self._lead :] if self._lead and spelled.startswith(b" " * self._lead) else spelled

    def _items(self, rows: list[np.ndarray]) -> Text:
        for i, row in enumerate(rows):
            if len(row) and (row.min() < 0 or row.max() >= self.alphabet):
                raise DataError(f"item {i} has the value {int(row.max())}, beyond the {self.alphabet} symbols")
        return Text([self._text(row) for row in rows], binary=False)

    def state(self) -> dict[str, Any]:
        return super().state() | {
            "alphabet": getattr(self, "alphabet", 0),
            "begin": self.begin,
            "ends": list(self.ends),
            "specials": self._specials,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.alphabet, self.begin, self.ends = state["alphabet"], state["begin"], tuple(state["ends"])
        self._specials = state["specials"]
        super().load_state(state)


def _spell(word: str, table: dict[str, int] | None) -> bytes:
    """The bytes of a piece; ``table`` gives those of byte-level characters."""
    if table is not None:
        return bytes(table[c] for c in word) if all(c in table for c in word) else word.encode("utf-8")
    found = _BYTE.fullmatch(word)
    return bytes([int(found[1], 16)]) if found else word.replace(_SPACE, " ").encode("utf-8")
