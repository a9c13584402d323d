"""The application: routes, limits, health and metrics."""

from __future__ import annotations

import contextlib
import logging
import time
from asyncio import to_thread
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from ancestral.errors import AncestralError, UnsupportedError
from ancestral.model import Model
from ancestral.serving.completions import CompletionRequest, Completions, text_engine
from ancestral.serving.limits import Limits, Refusal
from ancestral.serving.metrics import Metrics
from ancestral.serving.verbs import (
    CompleteRequest,
    Compressed,
    DecompressRequest,
    Items,
    ItemsRequest,
    SampleRequest,
    ScoreRequest,
    Scores,
    Verbs,
)
from ancestral.serving.worker import Worker
from ancestral.version import __version__

log = logging.getLogger("ancestral.serving")

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Guard:
    """Refuses bodies that are too large, counts requests, and answers what else goes wrong.

    Args:
        app: the application behind it.
        limits: of the body.
        metrics: what is counted.
        routes: paths that are counted by name.
    """

    def __init__(self, app: Any, limits: Limits, metrics: Metrics, routes: set[str]):
        self.app, self.limits, self.metrics, self.routes = app, limits, metrics, routes

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in self.routes else "other"
        began, status, read = time.monotonic(), 500, 0
        most = self.limits.body

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > most:
                raise _too_large(most)
            return message

        async def counted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            length = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
            if not length.isdigit() or int(length) > most:
                await _answer(_too_large(most))(scope, receive, counted)
            else:
                await self.app(scope, bounded, counted)
        finally:
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.monotonic() - began)
            if status in (413, 429, 503):
                self.metrics.refused.labels({413: "size", 429: "queue", 503: "stopping"}[status]).inc()


def _too_large(most: int) -> Refusal:
    return Refusal(f"the request has more than {most} bytes; send it in parts", 413, "too_large")


def _answer(refusal: Refusal) -> JSONResponse:
    return JSONResponse(refusal.body(), refusal.status, refusal.headers)


def describe(model: Model, name: str) -> dict[str, Any]:
    """What a client may want to know of the model."""
    space = model.space
    content = {
        "model": name,
        "recipe": None if model.recipe is None else model.recipe.id,
        "modality": model.tokenizer.modality,
        "sites": space.n,
        "shape": list(space.shape),
        "classes": list(model.tokenizer.classes),
        "verbs": list(model.verbs()),
        "parameters": model.parameters,
        "version": __version__,
    }
    columns = getattr(model.tokenizer, "columns", None)
    return content if columns is None else content | {"columns": list(columns)}


def create_app(model: Model, name: str | None = None, limits: Limits | None = None) -> FastAPI:
    """The ASGI application that serves ``model``.

    Args:
        model: fitted; nobody may train it meanwhile.
        name: what OpenAI's clients call it; by default its recipe's id.
        limits: what is taken on.
    """
    limits, name = limits or Limits(), name or model.name
    metrics, created = Metrics(), int(time.time())
    verbs = Verbs(model, limits, metrics)
    worker: Worker | None = None
    try:
        worker = Worker(text_engine(model, limits), limits, metrics)
        why = ""
    except UnsupportedError as error:
        why = str(error)
    texts = None if worker is None else Completions(model, name, worker, limits, to_thread)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if worker is not None:
            worker.start()
        try:
            yield
        finally:
            verbs.stop()
            if worker is not None:
                await worker.stop()

    app = FastAPI(title=f"ancestral: {name}", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.metrics, app.state.worker, app.state.verbs = metrics, worker, verbs

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> Response:
        return _answer(refusal)

    @app.exception_handler(AncestralError)
    async def mistaken(request: Request, error: AncestralError) -> Response:
        return _answer(Refusal(" ".join(str(error).split())))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"] if part != "body"]
        where = ".".join(place) or "the body"
        return _answer(Refusal(f"{where}: {first['msg'][:300]}", param=place[0] if place else None))

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        return _answer(
            Refusal(str(error.detail), error.status_code, "not_found" if error.status_code == 404 else "http")
        )

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return _answer(Refusal("something unexpected went wrong; the server's log says what", 500, "failed"))

    @app.get("/health")
    async def health() -> Response:
        """Whether the server answers."""
        down = worker is not None and (worker.failed or worker.closing)
        content = {"status": "down" if down else "ok", "waiting": 0 if worker is None else worker.waiting}
        return JSONResponse(content, 503 if down else 200)

    @app.get("/metrics")
    async def measured() -> Response:
        """Prometheus metrics."""
        return PlainTextResponse(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/model")
    async def about() -> dict[str, Any]:
        """What the model is and can do."""
        return describe(model, name)

    entry = {"id": name, "object": "model", "created": created, "owned_by": "ancestral"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [entry]}

    @app.get("/v1/models/{id:path}")
    async def one_model(id: str) -> dict[str, Any]:
        if id != name:
            raise Refusal(f"there is no model {id[:100]!r}; this is {name!r}", 404, "model_not_found", "model")
        return entry

    @app.post("/v1/completions")
    async def completions(asked: CompletionRequest, request: Request) -> Response:
        if texts is None:
            raise Refusal(why, 404, "unsupported")
        if not asked.stream:
            answer = await texts.whole(asked, request.is_disconnected)
            return Response(status_code=499) if answer is None else JSONResponse(answer)
        choices, prompts = await texts.choices(asked)
        streams = texts.open(choices)
        return StreamingResponse(
            texts.events(asked, choices, prompts, streams),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    async def answered(request: Request, function: Callable[[Any], Any]) -> Any:
        found = await verbs.run(request.is_disconnected, function)
        return Response(status_code=499) if found is None else found

    @app.post("/sample", response_model=Items)
    async def sample(asked: SampleRequest, request: Request) -> Any:
        """Draw new items."""
        return await answered(request, lambda check: verbs.sample(asked, check))

    @app.post("/score", response_model=Scores)
    async def score(asked: ScoreRequest, request: Request) -> Any:
        """Log-probabilities of items."""
        return await answered(request, lambda check: verbs.score(asked, check))

    @app.post("/complete", response_model=Items)
    async def complete(asked: CompleteRequest, request: Request) -> Any:
        """Draw what is unknown given what is known."""
        return await answered(request, lambda check: verbs.complete(asked, check))

    @app.post("/compress", response_model=Compressed)
    async def compress(asked: ItemsRequest, request: Request) -> Any:
        """Lossless code of items."""
        return await answered(request, lambda check: verbs.compress(asked, check))

    @app.post("/decompress", response_model=Items)
    async def decompress(asked: DecompressRequest, request: Request) -> Any:
        """The items of a lossless code."""
        return await answered(request, lambda check: verbs.decompress(asked, check))

    routes = {path for route in app.routes if (path := getattr(route, "path", None)) is not None}
    app.add_middleware(Guard, limits=limits, metrics=metrics, routes=routes)
    return app
