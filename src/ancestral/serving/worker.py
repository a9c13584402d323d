"""An engine in a thread of its own, for clients that wait in an event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Sequence

from ancestral.decoding.continuous import Drawn, Engine, Job
from ancestral.serving.limits import Limits, Refusal, busy
from ancestral.serving.metrics import Metrics

log = logging.getLogger("ancestral.serving")


class Streams:
    """The streams of one request."""

    def __init__(self, jobs: Sequence[Job]):
        self.jobs = list(jobs)
        self.open = set(map(id, self.jobs))
        self.began = time.monotonic()
        self.started = False
        self.queue: asyncio.Queue[list[Drawn] | Refusal] = asyncio.Queue()


class Worker:
    """Runs an engine for as long as there is something to draw.

    All methods but the thread's own are called from one event loop, the one that runs when :meth:`start` is called.

    Args:
        engine: nobody else may use it.
        limits: how much may wait.
        metrics: what is counted.
    """

    def __init__(self, engine: Engine, limits: Limits, metrics: Metrics):
        self.engine, self.limits, self.metrics = engine, limits, metrics
        self.failed = False
        self.closing = False
        self._streams: dict[int, Streams] = {}  # by job
        self._incoming: list[Job] = []
        self._leaving: list[Job] = []
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._mean = 1.0  # seconds that a stream takes, a moving average

    # -- in the event loop

    def start(self) -> None:
        """Begin to work."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="ancestral-engine", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Take no more, finish nothing: what is still being drawn is given up."""
        self._stop()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _stop(self) -> None:
        with self._wake:
            self.closing = True
            self._wake.notify()

    def open(self, jobs: Sequence[Job]) -> Streams:
        """Let the streams of a request wait for their turn, all of them or none.

        Raises:
            Refusal: too many are waiting, or the server is about to stop.
        """
        if self.failed or self.closing:
            raise Refusal("the server is stopping" if self.closing else "drawing has failed", 503, "unavailable")
        waiting = len(self._streams) + len(jobs) - self.limits.slots
        if waiting > self.limits.queue:
            if len(jobs) > self.limits.slots + self.limits.queue:
                most = self.limits.slots + self.limits.queue
                raise Refusal(
                    f"the request asks for {len(jobs)} texts, more than the {most} that are drawn or may wait here; "
                    "ask for fewer",
                    param="n",
                )
            retry = max(1, min(600, math.ceil(self._mean * waiting / self.limits.slots)))
            raise busy(f"{waiting - len(jobs)} texts are waiting already", retry)
        streams = Streams(jobs)
        for job in jobs:
            self._streams[id(job)] = streams
        with self._wake:
            self._incoming += jobs
            self._wake.notify()
        return streams

    async def drawn(self, streams: Streams) -> AsyncIterator[list[Drawn]]:
        """What is drawn, as it comes, until all streams of the request are over.

        Raises:
            Refusal: drawing failed.
        """
        while streams.open or not streams.queue.empty():
            found = await streams.queue.get()
            if isinstance(found, Refusal):
                raise found
            while not streams.queue.empty():
                more = streams.queue.get_nowait()
                if isinstance(more, Refusal):
                    raise more
                found += more
            if not streams.started:
                streams.started = True
                self.metrics.first.observe(time.monotonic() - streams.began)
            yield found

    def close(self, streams: Streams, job: Job | None = None) -> None:
        """Give up one stream of a request, or all that are not over; no matter if they are."""
        for one in streams.jobs if job is None else [job]:
            if self._streams.pop(id(one), None) is not None:
                streams.open.discard(id(one))
                with self._wake:
                    self._leaving.append(one)
                    self._wake.notify()

    @property
    def waiting(self) -> int:
        """Streams that are drawn or wait."""
        return len(self._streams)

    def _deliver(self, drawn: list[Drawn], seconds: float) -> None:
        self.metrics.step_seconds.observe(seconds)
        self.metrics.step_rows.observe(len(drawn))
        self.metrics.symbols.inc(len(drawn))
        parts: dict[int, tuple[Streams, list[Drawn]]] = {}
        for one in drawn:
            streams = self._streams.get(id(one.job))
            if streams is None:
                continue  # given up in the meantime
            parts.setdefault(id(streams), (streams, []))[1].append(one)
            if one.finish:
                del self._streams[id(one.job)]
                streams.open.discard(id(one.job))
                self._mean += 0.1 * (time.monotonic() - streams.began - self._mean)
        for streams, part in parts.values():
            streams.queue.put_nowait(part)

    def _fail(self, message: str) -> None:
        for streams in {id(s): s for s in self._streams.values()}.values():
            streams.queue.put_nowait(Refusal(message, 500, "failed"))
        self._streams.clear()

    # -- in the thread

    def _run(self) -> None:
        engine = self.engine
        while True:
            with self._wake:
                while not (self._incoming or self._leaving or self.closing or engine.busy):
                    self._wake.wait()
                incoming, self._incoming = self._incoming, []
                leaving, self._leaving = self._leaving, []
                if self.closing:
                    self._call(self._fail, "the server has stopped")
                    return
            gone = set(map(id, leaving))
            try:
                for job in incoming:
                    if id(job) not in gone:
                        engine.submit(job)
                for job in leaving:
                    engine.cancel(job)
                began = time.perf_counter()
                drawn = engine.step() if engine.busy else []
                seconds = time.perf_counter() - began
            except Exception:
                log.exception("drawing failed")
                self.failed = True
                self._call(self._fail, "drawing failed; the server's log says why")
                return
            self._call(self._report, drawn, seconds, engine.active, len(engine.waiting))

    def _report(self, drawn: list[Drawn], seconds: float, active: int, waiting: int) -> None:
        self.metrics.streams.labels("active").set(active)
        self.metrics.streams.labels("waiting").set(waiting)
        if drawn:
            self._deliver(drawn, seconds)

    def _call(self, function: object, *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]
        except RuntimeError:  # the loop is closed: nobody waits any more
            self.closing = True
