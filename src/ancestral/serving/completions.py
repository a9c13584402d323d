"""The OpenAI-compatible endpoint: texts that go on from prompts, whole or symbol by symbol.

Prompts and the requests' own choices are streams of one engine (:mod:`ancestral.decoding.continuous`); a seed gives the
texts that :meth:`ancestral.Model.complete` gives.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, StrictInt
from torch import Tensor

from ancestral.data import Text
from ancestral.decoding.continuous import Drawn, Engine, Job
from ancestral.errors import AncestralError, UnsupportedError
from ancestral.model import Model
from ancestral.noise import ITEM_STREAM, item_seeds
from ancestral.serving.limits import Limits, Refusal
from ancestral.serving.prompts import report
from ancestral.serving.text import Detokeniser, Piece, spelled
from ancestral.serving.worker import Streams, Worker

Ids = Annotated[list[StrictInt], Field(min_length=1)]


class StreamOptions(BaseModel):
    """What a streamed answer holds beside the text."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class CompletionRequest(BaseModel):
    """The body of ``/v1/completions``; fields that would be ignored are refused."""

    model_config = ConfigDict(extra="forbid")
    model: str
    prompt: str | Ids | Annotated[list[str], Field(min_length=1)] | Annotated[list[Ids], Field(min_length=1)] = ""
    max_tokens: int | None = Field(16, ge=0)
    temperature: float | None = Field(1.0, ge=0, le=100)
    top_p: float | None = Field(1.0, gt=0, le=1)
    top_k: int | None = Field(None, ge=1, description="an extension")
    min_p: float | None = Field(None, gt=0, le=1, description="an extension")
    n: int | None = Field(1, ge=1)
    best_of: int | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = False
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: int | None = None
    presence_penalty: Literal[0] | None = 0
    frequency_penalty: Literal[0] | None = 0
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    suffix: Literal[""] | None = None
    user: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What the symbols are drawn with; what changes nothing is left out."""
        out: dict[str, Any] = {}
        for name in ("temperature", "top_p"):
            if (value := getattr(self, name)) not in (None, 1.0):
                out[name] = value
        for name in ("top_k", "min_p"):
            if (value := getattr(self, name)) is not None:
                out[name] = value
        return out

    @property
    def stops(self) -> list[str]:
        """Sequences that end a text."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])


def text_engine(model: Model, limits: Limits) -> Engine:
    """The engine for a model of text.

    Raises:
        UnsupportedError: another kind of data, or a model that does not draw texts symbol by symbol.
    """
    if model.tokenizer.modality != "text" or not hasattr(model.tokenizer, "spelling"):
        raise UnsupportedError(f"{model.name} draws {model.tokenizer.modality}, not text; use /sample and /complete")
    if not model.generator.order.scoring().is_raster:
        raise UnsupportedError(f"{model.name} does not write from front to back; use /sample and /complete")
    return Engine(model.generator, model.context if model.tokenizer.streaming else None, limits.slots)


class Choice:
    """One text of an answer."""

    def __init__(self, index: int, job: Job | None, text: Detokeniser, usage: int):
        self.index, self.job, self.text, self.usage = index, job, text, usage
        self.finish: str | None = None if job is not None else "length"


class Completions:
    """Answers to ``/v1/completions`` of one model.

    Args:
        model: of text.
        name: what clients call it.
        worker: runs its engine.
        limits: see there.
        aside: runs what would hold up the event loop in another thread.
    """

    def __init__(self, model: Model, name: str, worker: Worker, limits: Limits, aside: Callable[..., Awaitable[Any]]):
        self.model, self.name, self.worker, self.limits, self.aside = model, name, worker, limits, aside
        spelling = getattr(model.tokenizer, "spelling", list)
        self.spelling: list[bytes] = spelling()

    # -- reading a request

    def _encode(self, prompt: Any) -> list[Tensor]:
        """The prompts' symbols, int64 ``[T]`` each."""
        several = isinstance(prompt, list) and not isinstance(prompt[0], int)
        prompts = prompt if several else [prompt]
        alphabet = len(self.spelling)
        if isinstance(prompts[0], str):
            tokenizer = self.model.tokenizer
            dataset = Text(prompts, binary=getattr(tokenizer, "binary", False))
            ids = [torch.from_numpy(row) for row in tokenizer._ids(dataset)]  # type: ignore[attr-defined]
        else:
            for one in prompts:
                if odd := next((i for i in one if not 0 <= i < alphabet), None):
                    raise Refusal(f"the prompt has the symbol {odd}; there are 0 to {alphabet - 1}", param="prompt")
            ids = [torch.tensor(one, dtype=torch.int64) for one in prompts]
        for one in ids:
            if len(one) > self.limits.prompt:
                raise Refusal(
                    f"the prompt has {len(one)} symbols, more than {self.limits.prompt}; shorten it",
                    param="prompt",
                    code="context_length_exceeded",
                )
        return ids

    async def choices(self, asked: CompletionRequest) -> tuple[list[Choice], list[Tensor]]:
        """The texts to draw and the prompts' symbols.

        Raises:
            Refusal: a request that this server does not answer.
        """
        if asked.model != self.name:
            raise Refusal(
                f"there is no model {asked.model[:100]!r}; this is {self.name!r}", 404, "model_not_found", "model"
            )
        n, length = asked.n or 1, 16 if asked.max_tokens is None else asked.max_tokens
        if asked.best_of not in (None, n):
            raise Refusal("best_of is not supported beside n; leave it out", param="best_of")
        if length > self.limits.symbols:
            raise Refusal(
                f"max_tokens={length} is more than this server draws; ask for {self.limits.symbols} at most",
                param="max_tokens",
            )
        if length == 0 and not asked.echo:
            raise Refusal("max_tokens=0 asks for nothing; add echo=true to score the prompt", param="max_tokens")
        count = len(asked.prompt) if isinstance(asked.prompt, list) and not isinstance(asked.prompt[0], int) else 1
        if count * n > self.limits.items:
            raise Refusal(f"{count} prompts of {n} texts are more than {self.limits.items}; ask for fewer", param="n")
        try:
            prompts = await self.aside(self._encode, asked.prompt)
        except AncestralError as error:
            raise Refusal(str(error), param="prompt") from error
        tokenizer, space = self.model.tokenizer, self.model.space
        ends = tokenizer.ends if tokenizer.streaming else (int(space.stop or 0),)
        seed = secrets.randbits(63) if asked.seed is None else asked.seed
        seeds = item_seeds(seed ^ (ITEM_STREAM if tokenizer.streaming else 0), torch.arange(count * n)).tolist()
        out = []
        for index in range(count * n):
            prefix = prompts[index // n]
            if length and not tokenizer.streaming and len(prefix) >= space.n:
                raise Refusal(
                    f"the prompt has {len(prefix)} symbols and leaves no room in this model's {space.n}", param="prompt"
                )
            job = Job(prefix, length, seeds[index], asked.options, ends, asked.logprobs) if length else None
            out.append(Choice(index, job, Detokeniser(self.spelling, asked.stops), len(prefix)))
        return out, prompts

    async def _echoed(self, asked: CompletionRequest, prompts: list[Tensor]) -> list[tuple[str, dict[str, Any] | None]]:
        """Text and log-probabilities of the prompts, if they are to be repeated."""
        if not asked.echo:
            return [("", None)] * len(prompts)
        out = []
        for prompt in prompts:
            top = asked.logprobs
            drawn = None if top is None else await self.aside(report, self.model, prompt, top)
            text = Detokeniser(self.spelling)
            shown, scored = "", _logprobs()
            for number, symbol in enumerate(prompt.tolist()):
                last = "length" if number + 1 == len(prompt) else ""
                log_prob, best = (None, ()) if drawn is None else drawn[number]
                piece = text.add(Drawn(_NOBODY, symbol, last, log_prob, best))
                self._extend(scored, piece, 0)
                shown += piece.text
            out.append((shown, None if top is None else scored))
        return out

    def _extend(self, scored: dict[str, Any], piece: Piece, shift: int) -> None:
        """Add a piece's symbols to log-probabilities in OpenAI's form."""
        for drawn, offset in zip(piece.drawn, piece.offsets, strict=True):
            scored["tokens"].append(spelled(self.spelling, drawn.symbol))
            scored["token_logprobs"].append(drawn.log_prob)
            scored["top_logprobs"].append({spelled(self.spelling, s): value for s, value in drawn.top})
            scored["text_offset"].append(offset + shift)

    # -- answering

    async def pieces(self, choices: list[Choice], streams: Streams | None) -> AsyncIterator[list[tuple[Choice, Piece]]]:
        """What becomes of the texts, as it comes."""
        if streams is None:
            return
        by_job = {id(choice.job): choice for choice in choices}
        async for part in self.worker.drawn(streams):
            out = []
            for drawn in part:
                choice = by_job[id(drawn.job)]
                if choice.finish is not None:
                    continue
                piece = choice.text.add(drawn)
                choice.usage += 1
                if choice.text.stopped:
                    choice.finish = "stop"
                    self.worker.close(streams, drawn.job)
                elif drawn.finish:
                    choice.finish = "stop" if drawn.finish == "end" else "length"
                if piece.text or piece.drawn or choice.finish:
                    out.append((choice, piece))
            if out:
                yield out

    def _usage(self, choices: list[Choice], prompts: list[Tensor]) -> dict[str, int]:
        read = sum(map(len, prompts))
        drawn = sum(choice.text.count for choice in choices)
        return {"prompt_tokens": read, "completion_tokens": drawn, "total_tokens": read + drawn}

    def _head(self) -> dict[str, Any]:
        return {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.name,
        }

    def open(self, choices: list[Choice]) -> Streams | None:
        """Let the texts wait for their turn.

        Raises:
            Refusal: too many are waiting.
        """
        jobs = [choice.job for choice in choices if choice.job is not None]
        self.worker.metrics.prompts.inc(sum(len(job.prefix) for job in jobs))
        return self.worker.open(jobs) if jobs else None

    async def whole(self, asked: CompletionRequest, gone: Callable[[], Awaitable[bool]]) -> dict[str, Any] | None:
        """The answer in one; None if the client left."""
        choices, prompts = await self.choices(asked)
        streams = self.open(choices)
        try:
            echoed = await self._echoed(asked, prompts)
            n = len(choices) // len(prompts)
            texts = [echoed[choice.index // n][0] for choice in choices]
            scored = [_copied(echoed[choice.index // n][1], asked.logprobs) for choice in choices]
            shift = list(map(len, texts))
            drawing = asyncio.ensure_future(self._gather(choices, streams, texts, scored, shift))
            try:
                while not (await asyncio.wait([drawing], timeout=0.2))[0]:
                    if await gone():
                        self.worker.metrics.cancelled.inc()
                        return None
                drawing.result()
            finally:
                drawing.cancel()
        finally:
            if streams is not None:
                self.worker.close(streams)
        listed = [
            {"text": text, "index": choice.index, "logprobs": score, "finish_reason": choice.finish}
            for choice, text, score in zip(choices, texts, scored, strict=True)
        ]
        return self._head() | {"choices": listed, "usage": self._usage(choices, prompts)}

    async def _gather(
        self,
        choices: list[Choice],
        streams: Streams | None,
        texts: list[str],
        scored: list[dict[str, Any] | None],
        shift: list[int],
    ) -> None:
        async for part in self.pieces(choices, streams):
            for choice, piece in part:
                texts[choice.index] += piece.text
                score = scored[choice.index]
                if score is not None:
                    self._extend(score, piece, shift[choice.index])

    async def events(
        self, asked: CompletionRequest, choices: list[Choice], prompts: list[Tensor], streams: Streams | None
    ) -> AsyncIterator[bytes]:
        """The answer as server-sent events."""
        head = self._head()
        usage = {"usage": None} if asked.stream_options and asked.stream_options.include_usage else {}
        over = False

        def event(choice: Choice, text: str, score: dict[str, Any] | None) -> bytes:
            one = {"text": text, "index": choice.index, "logprobs": score, "finish_reason": choice.finish}
            return b"data: " + json.dumps(head | {"choices": [one]} | usage).encode() + b"\n\n"

        try:
            echoed = await self._echoed(asked, prompts)
            n = len(choices) // len(prompts)
            if asked.echo:
                yield b"".join(event(choice, *echoed[choice.index // n]) for choice in choices)
            async for part in self.pieces(choices, streams):
                lines = []
                for choice, piece in part:
                    score = None
                    if asked.logprobs is not None:
                        score = _logprobs()
                        self._extend(score, piece, len(echoed[choice.index // n][0]))
                    lines.append(event(choice, piece.text, score))
                yield b"".join(lines)
            if usage:
                last = head | {"choices": [], "usage": self._usage(choices, prompts)}
                yield b"data: " + json.dumps(last).encode() + b"\n\n"
            yield b"data: [DONE]\n\n"
            over = True
        except Refusal as refusal:
            over = True
            yield b"data: " + json.dumps(refusal.body()).encode() + b"\n\n"
        finally:
            if streams is not None:
                self.worker.close(streams)
            if not over:
                self.worker.metrics.cancelled.inc()


_NOBODY = Job(torch.zeros(0, dtype=torch.int64), 1, 0)


def _logprobs() -> dict[str, Any]:
    return {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}


def _copied(scored: dict[str, Any] | None, top: int | None) -> dict[str, Any] | None:
    if top is None:
        return None
    return _logprobs() if scored is None else {name: list(values) for name, values in scored.items()}
