"""A real server on the loopback interface, and tiny models of three kinds to put behind it."""

from __future__ import annotations

import contextlib
import functools
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pandas as pd
import uvicorn

from ancestral.api import fit
from ancestral.model import Model
from ancestral.quickstart import digits
from ancestral.recipes.registry import find
from ancestral.serving.app import create_app
from ancestral.serving.limits import Limits

NOVEL = "It was a dark and stormy night; the café was empty. "


@functools.cache
def text_model() -> Model:
    model = find("gpt")(width=16, depth=1, heads=2, length=24)
    return model.fit([NOVEL * 20], steps=25, quiet=True)


@functools.cache
def people() -> pd.DataFrame:
    draw = random.Random(0)
    rows = 60
    return pd.DataFrame(
        {
            "sex": [draw.choice(["Female", "Male"]) for _ in range(rows)],
            "age": [draw.randint(18, 70) for _ in range(rows)],
            "height": [round(draw.uniform(1.5, 2), 2) for _ in range(rows)],
        }
    )


@functools.cache
def table_model() -> Model:
    return fit(people(), recipe="any-order", width=16, depth=1, heads=2, steps=3, quiet=True)


@functools.cache
def image_model() -> Model:
    some = digits()[1].take(slice(0, 64))
    return fit(some, recipe="any-order", width=16, depth=1, heads=2, steps=3, quiet=True)


class Served:
    """A running server: ``url``, its application, and a way to stop it."""

    def __init__(self, model: Model, limits: Limits, grace: int):
        self.app = create_app(model, "novel", limits)
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        config = uvicorn.Config(self.app, log_level="error", timeout_graceful_shutdown=grace, ws="none")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listening]}, daemon=True)
        self.thread.start()
        wait(lambda: self.server.started)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()

    def count(self, name: str, **labels: str) -> float:
        return self.app.state.metrics.registry.get_sample_value(name, labels) or 0.0


@contextlib.contextmanager
def serving(model: Model, limits: Limits | None = None, grace: int = 5) -> Iterator[Served]:
    served = Served(model, limits or Limits(), grace)
    try:
        yield served
    finally:
        served.stop()


@contextlib.contextmanager
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=30) as made:
        yield made


def wait(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    """Until ``condition`` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def refused(answer: httpx.Response, status: int) -> str:
    """The sentence of a request that is refused."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and "Traceback" not in answer.text
    return error["message"]
