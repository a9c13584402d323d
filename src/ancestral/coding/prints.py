"""Fingerprints: is this the model that wrote the stream, and does it compute the same numbers here?"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ancestral.coding.choosers import OTHER_NUMBERS, REAL_VALUES, probability_rows
from ancestral.coding.container import ITEMS, STREAMS, Container
from ancestral.decoding.walk import walk
from ancestral.errors import StreamError, UnsupportedError
from ancestral.heads.base import Chooser, Leaf
from ancestral.native import without
from ancestral.noise import hash64
from ancestral.order import Order
from ancestral.space import Condition, Space

if TYPE_CHECKING:
    from ancestral.generator import Generator

_SETS, _SITES, _ROWS = 8, 64, 16
"""Size of the probe: sets and sites at either end of the order, items at the far end."""


_MOST_THREADS = 1024


def fingerprint(generator: Generator) -> bytes:
    """8 bytes of SHA-256 over the space, the scoring order and all weights in the order of their names."""
    digest = hashlib.sha256(json.dumps(generator.space.to_json(), sort_keys=True).encode())
    digest.update(generator.order.scoring().rank.cpu().numpy().astype("<i8").tobytes())
    for name, tensor in sorted(generator.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.digest()[:8]


def values_digest(*values: Tensor) -> bytes:
    """4 bytes of SHA-256 over values, int64."""
    digest = hashlib.sha256()
    for v in values:
        digest.update(v.cpu().contiguous().numpy().astype("<i8").tobytes())
    return digest.digest()[:4]


class _Hash:
    """Chooser that takes the given values and hashes the bits of all probabilities that it is shown."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def __call__(self, leaf: Leaf, given: Tensor | None, alive: Tensor | None) -> Tensor:
        assert given is not None
        for probs in probability_rows(leaf, alive):
            self.digest.update(probs.astype("<f4").tobytes())
        return given


def probe_values(space: Space, batch: int) -> Tensor:
    """Pseudo-random valid values, int64 ``[batch, N, *event]``, without the stop symbol."""
    shape = (batch, space.n, *space.event)
    count = batch * space.scalars
    numbers = hash64(torch.arange(count)).reshape(shape) & 0x7FFFFFFF
    sizes = space.site_sizes().reshape(space.n, *[1] * len(space.event))
    values = numbers % sizes
    return values if space.stop is None else torch.where(values == space.stop, (values + 1) % sizes, values)


def probe(
    generator: Generator,
    batch: int,
    order: Order,
    condition: Condition | None = None,
    around: Callable[[Chooser, int], Chooser] | None = None,
) -> bytes:
    """4 bytes of SHA-256 over the bits of probabilities on fixed values, by the path that coding takes.

    The first sets are followed in the batch's own shape, and the last ones by a few items, so that both short and
    long contexts are tried.

    Args:
        generator: a built generator.
        batch: items coded together.
        order: the order of coding.
        condition: what the model is told about those items.
        around: puts around a chooser of this many items what coding puts around its own.
    """
    device = next(generator.parameters()).device
    chooser = _Hash()
    condition = condition or Condition()

    def follow(rows: int, known: int, sets: int) -> None:
        told = condition.map(lambda t: t[:rows])
        given = probe_values(generator.space, rows).to(device)
        asked = chooser if around is None else around(chooser, rows)
        walk(generator, asked, rows, order, told, given=given, known_sets=known, sets=sets)

    head = _few(order.sizes)
    follow(batch, 0, head)
    tail = min(order.n_sets - head, _few(order.sizes[::-1]))
    if tail:
        follow(min(batch, _ROWS), order.n_sets - tail, tail)
    return chooser.digest.digest()[:4]


def _few(sizes: tuple[int, ...]) -> int:
    """Leading sets with not too many sites; at least one."""
    count = total = 0
    for size in sizes[:_SETS]:
        total += size
        if count and total > _SITES:
            break
        count += 1
    return count


@contextlib.contextmanager
def numerics(generator: Generator, threads: int | None = None) -> Iterator[int]:
    """Evaluation mode and a fixed number of torch threads for the time of coding; yields that number.

    Sums are split between threads, so that their number can change the last bits of a result. Compiled kernels stay
    unused, so that streams can be read where there are none.
    """
    before, training = torch.get_num_threads(), generator.training
    threads = before if threads is None else threads
    try:
        generator.eval()
        if threads != before:
            torch.set_num_threads(threads)
        with without():
            yield threads
    finally:
        if threads != before:
            torch.set_num_threads(before)
        generator.train(training)


def require_finite(generator: Generator) -> None:
    """Refuse models of real values.

    Raises:
        UnsupportedError: with the alternatives.
    """
    if not generator.head.finite or not generator.space.discrete:
        raise UnsupportedError(REAL_VALUES)


def require_order(generator: Generator, order: Order) -> None:
    """Refuse orders that the network cannot follow, or that differ between items.

    Raises:
        UnsupportedError: with the reason.
    """
    if order.batched or order.n != generator.space.n:
        raise UnsupportedError(
            f"data are coded in one order of the model's {generator.space.n} sites for all items; give such an order"
        )
    try:
        generator.network.check(order)
    except ValueError as error:
        raise UnsupportedError(f"the data cannot be coded in this order: {error}") from error


def require_writer(generator: Generator, content: Container, kind: int, numbers: int, sections: int) -> None:
    """Refuse a stream of another kind, or of another model.

    Of every kind, the first number is that of torch threads and the third the batch size; the last section is the
    code, in words of 4 bytes.

    Raises:
        StreamError: with the reason.
    """
    if content.kind != kind:
        known = {ITEMS: "separate items", STREAMS: "long streams of symbols"}
        raise StreamError(
            f"the stream holds {known.get(content.kind, 'data of an unknown kind')}, this model codes "
            f"{known[kind]}; load the model that wrote it"
        )
    if content.fingerprint != fingerprint(generator):
        raise StreamError(
            "the stream was written with another model (the fingerprints of the weights differ); load that model"
        )
    if (
        len(content.numbers) != numbers
        or len(content.sections) != sections
        or not 1 <= content.numbers[0] <= _MOST_THREADS
        or content.numbers[2] < 1
        or len(content.sections[-1]) % 4
    ):
        raise StreamError("the stream's header contradicts itself; it was not written by ancestral")


def require_same(found: bytes, written: bytes) -> None:
    """Refuse to go on where numbers differ from the writer's.

    Raises:
        StreamError: they do.
    """
    if found != written:
        raise StreamError(OTHER_NUMBERS)
