"""Sound as mu-law symbols, and what is left of every sample as uniform digits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import constriction
import numpy as np
from torch import Tensor

from ancestral.data.audio import Audio
from ancestral.data.base import Dataset
from ancestral.errors import DataError, StreamError
from ancestral.tokenizers.base import SequenceTokenizer


class MuLaw(SequenceTokenizer):
    """One symbol per sample by mu-law companding, ``sign(x) ln(1 + mu |x|) / ln(1 + mu)`` with mu = levels - 1.

    The companding of ITU-T G.711 in its smooth form, as in WaveNet (van den Oord et al. 2016, arXiv:1609.03499).
    A symbol stands for a cell of samples, wide where it is loud: *the symbols alone lose precision*, and drawn or
    decoded symbols become the middle sample of their cell. Nothing is lost where it matters: scores count the place
    within the cell as uniform (:meth:`rest`), and compressed streams hold it (:meth:`streams_exact`), so that they
    are those of the samples themselves, and a continued clip keeps its given beginning.

    Args:
        levels: number of cells.
        length: sites N; None takes the longest training clip (not streaming).
        streaming: clips of any length, seen through windows of ``length`` samples; otherwise clips of at most
            ``length`` samples, ended and padded by a symbol of its own.

    Shapes:
        values: int64 ``[n, length]``.
    """

    modality = "audio"

    def __init__(self, levels: int = 256, length: int | None = 1024, streaming: bool = True) -> None:
        if levels < 2:
            raise DataError(f"levels={levels} leaves nothing to tell apart; give at least 2")
        self.alphabet, self.length, self.streaming = levels, length, streaming
        self._adopt(16, 16000)

    def _adopt(self, bits: int, rate: int) -> None:
        self.bits, self.rate = bits, rate
        half = 1 << (bits - 1)
        x = np.arange(-half, half) / half
        mu = self.alphabet - 1
        squeezed = np.sign(x) * np.log1p(mu * np.abs(x)) / np.log1p(mu)
        self._code = np.minimum(((squeezed + 1) / 2 * self.alphabet).astype(np.int64), self.alphabet - 1)
        self._width = np.bincount(self._code, minlength=self.alphabet)
        self._first = np.searchsorted(self._code, np.arange(self.alphabet)) - half

    def fit(self, dataset: Dataset) -> MuLaw:
        self._expect(dataset)
        assert isinstance(dataset, Audio)
        self._adopt(dataset.bits, dataset.rate)
        self._settle(dataset, [len(clip) for clip in dataset.clips])
        return self

    def _part(self, content: Any) -> Audio:
        return Audio.read([content])

    def _ids(self, dataset: Dataset) -> list[np.ndarray]:
        assert isinstance(dataset, Audio)
        if dataset.bits != self.bits:
            raise DataError(f"the sound has {dataset.bits} bits per sample and the model {self.bits}; convert it")
        return [self._code[clip + (1 << (self.bits - 1))] for clip in dataset.clips]

    def _items(self, rows: list[np.ndarray]) -> Audio:
        for i, row in enumerate(rows):
            if len(row) and (row.min() < 0 or row.max() >= self.alphabet):
                raise DataError(f"clip {i} has the value {int(row.max())}, beyond the {self.alphabet} levels")
        top = (1 << (self.bits - 1)) - 1
        # A cell that no sample falls into gives the nearest one.
        middle = np.minimum(self._first + self._width // 2, top)
        return Audio([middle[row] for row in rows], self.rate, self.bits)

    def rest(self, dataset: Dataset) -> list[np.ndarray]:
        return [-np.log(self._width[row]) for row in self._ids(dataset)]

    def _exact(self, dataset: Dataset) -> bytes:
        """The place of every sample within its cell, at ``log2(cell)`` bits each."""
        assert isinstance(dataset, Audio)
        rows = np.concatenate([np.zeros(0, np.int64), *self._ids(dataset)])
        places = np.concatenate([np.zeros(0, np.int64), *dataset.clips]) - self._first[rows]
        wide = self._width[rows] > 1
        coder = constriction.stream.queue.RangeEncoder()
        if wide.any():
            widths = self._width[rows][wide].astype(np.int32)
            coder.encode(places[wide].astype(np.int32), constriction.stream.model.Uniform(), widths)
        return coder.get_compressed().astype("<u4").tobytes()

    def _restore(self, coarse: Audio, rows: list[np.ndarray], extra: bytes) -> Audio:
        every = np.concatenate([np.zeros(0, np.int64), *rows])
        wide = self._width[every] > 1
        places = np.zeros(len(every), np.int64)
        if wide.any():
            coder = constriction.stream.queue.RangeDecoder(np.frombuffer(extra, "<u4").astype(np.uint32))
            try:
                places[wide] = coder.decode(
                    constriction.stream.model.Uniform(), self._width[every][wide].astype(np.int32)
                )
            except AssertionError as error:
                raise StreamError("the digits of the samples are damaged; get the stream again") from error
        samples = self._first[every] + places
        ends = np.cumsum([len(row) for row in rows])
        coarse.clips = [part.astype(np.int32) for part in np.split(samples, ends[:-1])] if len(rows) else []
        return coarse

    def encode_exact(self, dataset: Dataset) -> tuple[Tensor, bytes]:
        return self.encode(dataset), self._exact(dataset)

    def decode_exact(self, values: Tensor, extra: bytes = b"") -> Audio:
        rows = [self._cut(value) for value in values]
        return self._restore(self._items(rows), rows, extra)

    def streams_exact(self, dataset: Dataset) -> tuple[list[Tensor], bytes]:
        return self.streams(dataset), self._exact(dataset)

    def from_streams_exact(self, streams: Sequence[Tensor], extra: bytes) -> Audio:
        rows = [stream.cpu().numpy().astype(np.int64) for stream in streams]
        return self._restore(self._items(rows), rows, extra)

    def continued(self, streams: Sequence[Tensor], dataset: Dataset) -> Audio:
        assert isinstance(dataset, Audio)
        out = self.from_streams(streams)
        assert isinstance(out, Audio)
        for clip, given in zip(out.clips, dataset.clips, strict=True):
            clip[: len(given)] = given
        return out

    def decode_given(self, values: Tensor, dataset: Dataset, known: Tensor | None = None) -> Audio:
        assert isinstance(dataset, Audio)
        out = self.decode(values)
        assert isinstance(out, Audio)
        for i, (clip, given) in enumerate(zip(out.clips, dataset.clips, strict=True)):
            count = min(len(clip), len(given))
            shown = np.ones(count, bool) if known is None else known[i, :count].cpu().numpy()
            clip[:count] = np.where(shown, given[:count], clip[:count])
        return out

    def state(self) -> dict[str, Any]:
        own = {"levels": self.alphabet, "length": self.length, "streaming": self.streaming}
        return self._base_state() | own | {"bits": self.bits, "rate": self.rate}

    def load_state(self, state: dict[str, Any]) -> None:
        self.alphabet, self.length, self.streaming = state["levels"], state["length"], state["streaming"]
        self._adopt(state["bits"], state["rate"])
        self._load_base(state)
