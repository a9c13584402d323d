"""What the server counts, in Prometheus' format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "ancestral_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "ancestral_request_seconds",
            "Time until a request was over.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.streams = Gauge("ancestral_streams", "Streams being drawn or waiting.", ["state"], registry=registry)
        self.symbols = Counter("ancestral_symbols", "Symbols drawn.", registry=registry)
        self.prompts = Counter("ancestral_prompt_symbols", "Symbols of prompts.", registry=registry)
        self.step_seconds = Histogram(
            "ancestral_step_seconds", "Time of one fused step.", buckets=_SECONDS, registry=registry
        )
        self.step_rows = Histogram(
            "ancestral_step_rows", "Streams in one fused step.", buckets=_ROWS, registry=registry
        )
        self.first = Histogram(
            "ancestral_first_symbol_seconds", "Time from a request to its first symbol.", buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.cancelled = Counter("ancestral_cancelled", "Requests whose client left.", registry=registry)
        self.refused = Counter("ancestral_refused", "Requests refused, by reason.", ["reason"], registry=registry)
