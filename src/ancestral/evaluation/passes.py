"""How much work drawing takes: passes of a model's network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ancestral.networks.base import Cache, Network

_WAYS_IN = ("forward", "observe", "step", "mix")


@dataclass
class Passes:
    """Counts while :func:`counting` is open.

    Attributes:
        network: passes of the network, each over the whole batch; guided steps take one, of a batch twice as large.
            Where a head asks the network again while it draws a set (:meth:`Network.look`), each time is a pass; one
            over a part of the rows counts as that share.
        draft: passes of its shorter copies, which speculative decoding drafts with.
    """

    network: float = 0
    draft: float = 0


@contextlib.contextmanager
def counting(network: Network) -> Iterator[Passes]:
    """Count the passes of a network: calls of its methods from outside.

    What those call in turn, parts of an ensemble for instance, belongs to the same pass. Passes of a small head, such
    as the denoiser of a diffusion head, are not counted.
    """
    found, inside = Passes(), [0]

    def counted(method: Any) -> Any:
        def call(self: Network, *positional: Any, **named: Any) -> Any:
            if not inside[0]:
                found.network += self is network
                found.draft += self is not network
            inside[0] += 1
            try:
                return method(self, *positional, **named)
            finally:
                inside[0] -= 1

        return call

    # A class of its own rather than attributes of the instance: copies of the network keep their own layers.
    kind: Any = type(network)
    ways = {name: counted(getattr(kind, name)) for name in _WAYS_IN if hasattr(kind, name)}

    def look(self: Network, cache: Cache, now: Any, time: Any, rows: slice) -> Any:
        found.network += len(range(*rows.indices(cache.batch))) / cache.batch
        return kind.look(self, cache, now, time, rows)

    def stepped(self: Network, count: int) -> None:
        found.network += count * (self is network)
        found.draft += count * (self is not network)

    network.__class__ = type(kind.__name__, (kind,), {**ways, "look": look, "stepped": stepped})
    try:
        yield found
    finally:
        network.__class__ = kind
