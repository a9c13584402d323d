"""The verbs as endpoints: JSON in, JSON out, for models of every modality.

One request is worked on at a time, in a thread beside the event loop; between batches it looks whether its client is
still there.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ancestral.coding import claimed
from ancestral.data import Dataset
from ancestral.errors import UnsupportedError
from ancestral.model import Model
from ancestral.serving.items import dataset_of, known_sites, packed, plain, unpacked
from ancestral.serving.limits import Limits, Refusal, busy
from ancestral.serving.metrics import Metrics

_PART = 64
"""Items worked on before the client is looked for again."""

Check = Callable[[], None]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Drawing(_Body):
    """How values are drawn."""

    seed: int = 0
    label: str | int | None = None
    length: int | None = Field(None, ge=1, description="symbols to draw, for models of running text and sound")
    guidance: float = 0.0
    temperature: float | None = Field(None, ge=0)
    top_k: int | None = Field(None, ge=1)
    top_p: float | None = Field(None, gt=0, le=1)
    min_p: float | None = Field(None, gt=0, le=1)

    def options(self) -> dict[str, Any]:
        """Arguments of the verbs; what was not given is left out."""
        names = ("length", "temperature", "top_k", "top_p", "min_p", "label")
        out = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return out | ({"guidance": self.guidance} if self.guidance else {})


class SampleRequest(Drawing):
    """New items."""

    n: int = Field(1, ge=1)
    first: int = Field(0, ge=0, description="number of the first item")
    given: dict[str, Any] | list[str | int] | str | None = Field(
        None, description="what every item shall have: columns and values, or how a text or sequence begins"
    )


class ItemsRequest(_Body):
    """Items."""

    items: list[Any]


class ScoreRequest(ItemsRequest):
    """Items whose probability is asked for."""

    label: str | int | None = None


class CompleteRequest(Drawing):
    """Items with gaps, or to go on from."""

    items: list[Any]
    known: str | Annotated[list[str], Field(min_length=1)] | None = None
    draws: int = Field(1, ge=1)


class DecompressRequest(_Body):
    """What ``/compress`` gave."""

    data: str


class Items(BaseModel):
    """Items of the model's modality."""

    items: list[Any]


class Scores(BaseModel):
    """Log-probabilities: nats per item; null where it is minus infinity."""

    log_prob: list[float | None]
    kind: str
    of: str
    bits_per_dim: float | None


class Compressed(BaseModel):
    """A lossless code."""

    data: str
    bytes: int


class Verbs:
    """Answers to the verbs of one model."""

    def __init__(self, model: Model, limits: Limits, metrics: Metrics):
        self.model, self.limits, self.metrics = model, limits, metrics
        self._pool = ThreadPoolExecutor(1, "ancestral-verbs")
        self._waiting = 0
        self._mean = 1.0

    def stop(self) -> None:
        """Give up what has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, gone: Callable[[], Awaitable[bool]], function: Callable[[Check], Any]) -> Any:
        """The result of a function in the thread of the verbs; None if the client leaves before.

        Args:
            gone: whether the client has left.
            function: is given something to call now and then, which ends it if nobody waits any more.

        Raises:
            Refusal: too many are waiting.
        """
        if self._waiting > self.limits.verbs:
            retry = max(1, min(600, math.ceil(self._mean * self._waiting)))
            raise busy(f"{self._waiting} requests are waiting already", retry)
        left = threading.Event()

        def check() -> None:
            if left.is_set():
                raise asyncio.CancelledError

        def work() -> Any:
            check()
            began = time.monotonic()
            try:
                return function(check)
            finally:
                self._mean += 0.2 * (time.monotonic() - began - self._mean)

        self._waiting += 1
        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, work)
            future.add_done_callback(_retrieve)
            while not (await asyncio.wait([future], timeout=0.2))[0]:
                if await gone():
                    self.metrics.cancelled.inc()
                    return None
            return future.result()
        finally:
            left.set()
            self._waiting -= 1

    def _count(self, n: int, what: str) -> None:
        if n > self.limits.items:
            raise Refusal(f"{n} items are more than {self.limits.items}; ask for fewer", 413, param=what)

    def _length(self, length: int | None) -> None:
        if length is not None and length > self.limits.symbols:
            raise Refusal(f"length={length} is more than {self.limits.symbols}; ask for fewer", param="length")

    def sample(self, asked: SampleRequest, check: Check) -> Items:
        """New items."""
        self._count(asked.n, "n")
        self._length(asked.length)
        model, options, given = self.model, asked.options(), asked.given
        if given is not None and model.tokenizer.modality == "table":
            if not isinstance(given, dict):
                raise Refusal("given is an object of columns and values for tables", param="given")
        elif isinstance(given, dict):
            raise Refusal("given is the beginning of a text or sequence here", param="given")
        elif given is not None and (model.tokenizer.streaming or model.tokenizer.modality in ("images", "audio")):
            raise Refusal("the beginning of an item is given to /complete", param="given")
        out: list[Any] = []
        for first in range(0, asked.n, _PART):
            check()
            count = min(_PART, asked.n - first)
            at = asked.first + first
            drawn = model.sample(count, given=given, seed=asked.seed, first=at, as_dataset=True, **options)
            out += plain(drawn)
        return Items(items=out)

    def score(self, asked: ScoreRequest, check: Check) -> Scores:
        """Log-probabilities."""
        dataset = dataset_of(self.model, asked.items, self.limits)
        parts = []
        for a in range(0, len(dataset), _PART):
            check()
            parts.append(self.model.log_prob(dataset.take(slice(a, a + _PART)), label=asked.label))
        nats = [float(v) for part in parts for v in np.asarray(part)]
        scalars = sum(int(part.scalars.sum()) for part in parts)
        bits = -sum(nats) / math.log(2) / max(scalars, 1)
        return Scores(
            log_prob=[v if math.isfinite(v) else None for v in nats],
            kind=parts[0].kind,
            of=parts[0].of,
            bits_per_dim=bits if math.isfinite(bits) else None,
        )

    def complete(self, asked: CompleteRequest, check: Check) -> Items:
        """The unknown given the known."""
        self._count(len(asked.items) * asked.draws, "draws")
        self._length(asked.length)
        model = self.model
        dataset = dataset_of(model, asked.items, self.limits)
        known = known_sites(model, asked.known, self.limits)
        if model.tokenizer.modality == "images" and known is None:
            raise Refusal('images have no gaps of their own; say what is known, for instance "top"', param="known")
        check()
        told = {} if known is None else {"known": known}
        done = model.complete(
            dataset, draws=asked.draws, seed=asked.seed, as_dataset=True, batch_size=_PART, **told, **asked.options()
        )
        return Items(items=plain(done))

    def compress(self, asked: ItemsRequest, check: Check) -> Compressed:
        """A lossless code."""
        self._lossless()
        dataset: Dataset = dataset_of(self.model, asked.items, self.limits)
        blob = self.model.compress(dataset, progress=lambda done, total: check())
        return Compressed(data=packed(blob), bytes=len(blob))

    def decompress(self, asked: DecompressRequest, check: Check) -> Items:
        """The items of a lossless code, once it has been made sure that they are not too many."""
        self._lossless()
        blob = unpacked(asked.data, "data")
        items, symbols = claimed(blob, self.limits.body)
        self._count(items, "data")
        if symbols > self.limits.body:
            raise Refusal(
                f"the stream says that it holds {symbols} symbols; decompress it elsewhere", 413, param="data"
            )
        back = self.model.decompress(blob, as_dataset=True, progress=lambda done, total: check())
        return Items(items=plain(back))

    def _lossless(self) -> None:
        if "compress" not in self.model.verbs():
            raise UnsupportedError(
                f"{self.model.name} cannot compress: its values are real or its tokenizer is lossy; it can "
                f"{', '.join(self.model.verbs())}"
            )


def _retrieve(future: Any) -> None:
    """Look at the outcome that nobody waits for any more, so that it is not warned about."""
    if not future.cancelled():
        future.exception()
