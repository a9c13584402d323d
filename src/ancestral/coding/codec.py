"""Lossless coding of items: values tensors ``[n, N, *event]``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ancestral.coding.choosers import Decode, Encode, reporting
from ancestral.coding.container import ITEMS, Container, pack, read_varints, unpack, varints
from ancestral.coding.labels import decode_labels, encode_labels
from ancestral.coding.prints import (
    fingerprint,
    numerics,
    probe,
    require_finite,
    require_order,
    require_same,
    require_writer,
    values_digest,
)
from ancestral.decoding.walk import walk
from ancestral.errors import DataError, StreamError
from ancestral.heads.base import Chooser
from ancestral.order import Order
from ancestral.space import Condition, Space

if TYPE_CHECKING:
    from ancestral.generator import Generator

# Meaning of the container's numbers and sections for items.
_NUMBERS = ("threads", "items", "batch", "labelled")
_SECTIONS = ("side", "order", "labels", "condition", "code")


class Decoded(NamedTuple):
    """What a container of items holds.

    Attributes:
        values: int64 ``[n, N, *event]``.
        side: the caller's own bytes.
        labels: int64 ``[n]`` if the items were coded given labels, else None.
    """

    values: Tensor
    side: bytes
    labels: Tensor | None


def encode_values(
    generator: Generator,
    values: Tensor,
    condition: Condition | None = None,
    order: Order | None = None,
    batch_size: int = 256,
    side: bytes = b"",
    progress: Callable[[int, int], None] | None = None,
) -> bytes:
    """Code items with ``-log2 p`` bits each, and a header of about 40 bytes for all.

    The encoder takes the same steps in the same shapes as the decoder, so that both see the same probabilities to
    the bit; batches follow each other in one code.

    Args:
        generator: a built generator with finitely many values.
        values: int64 ``[n, N, *event]``.
        condition: labels are stored too, adaptively coded (:mod:`ancestral.coding.labels`); the decoder must be given
            the same vectors and per-site conditions. Without it, labels are withheld from the model.
        order: shared by all items; by default the scoring order. Another one is stored.
        batch_size: items coded together; recorded.
        side: bytes of the caller, stored deflated if that is shorter.
        progress: called with the scalars done and their total.

    Raises:
        UnsupportedError: real values, or an order that the network cannot follow.
        DataError: values that the model has no place for.
    """
    require_finite(generator)
    space = generator.space
    scoring = generator.order.scoring()
    own = order is not None and (order.batched or not torch.equal(order.rank.cpu(), scoring.rank.cpu()))
    order = (order if order is not None and own else scoring).to("cpu")
    require_order(generator, order)
    check_values(space, values, order)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    values, n = values.cpu(), len(values)
    condition = _checked(space, condition, n)
    coder = Encode()
    chooser = reporting(coder, n * space.scalars, progress)
    with numerics(generator) as threads:
        seen = _probe(generator, order, condition, n, batch_size)
        taken = _follow(generator, chooser, order, condition, n, batch_size, values)
    if progress is not None:
        progress(n * space.scalars, n * space.scalars)
    if not torch.equal(taken, values):
        raise DataError("the model cannot hold these values without loss; encode them with the model's own tokenizer")
    labels = b""
    if condition.label is not None:
        labels = encode_labels((condition.label + 1).numpy(), space.classes + 1)
    return pack(
        Container(
            ITEMS,
            fingerprint(generator),
            seen,
            values_digest(values),
            (threads, n, batch_size, int(condition.label is not None)),
            (side, varints(order.rank.tolist()) if own else b"", labels, _told(condition), coder.words()),
        )
    )


def decode(
    generator: Generator,
    blob: bytes,
    condition: Condition | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Decoded:
    """Everything that :func:`encode_values` was given, to the bit.

    Args:
        generator: the generator that encoded.
        blob: the bytes.
        condition: the vectors and per-site conditions that the encoder was given; a label here is ignored, since
            labels are stored.
        progress: called with the scalars done and their total.

    Raises:
        StreamError: damaged, cut short, of another model, of other conditions, or of another numerical result.
        UnsupportedError: a model of real values.
    """
    require_finite(generator)
    content = unpack(blob)
    require_writer(generator, content, ITEMS, len(_NUMBERS), len(_SECTIONS))
    threads, n, batch_size, labelled = content.numbers
    side, ranks, labels, told, code = content.sections
    space = generator.space
    order = generator.order.scoring().to("cpu")
    if ranks:
        order = Order(torch.tensor(read_varints(ranks)))
        require_order(generator, order)
    label = torch.from_numpy(decode_labels(labels, n, space.classes + 1) - 1) if labelled and n else None
    condition = Condition(label, *((condition.vector, condition.site) if condition is not None else (None, None)))
    condition = _checked(space, condition, n)
    if _told(condition) != told:
        raise StreamError(
            "the stream was written under other vectors or per-site conditions; give the condition that the "
            "encoder was given"
        )
    chooser = reporting(Decode(code), n * space.scalars, progress)
    with numerics(generator, threads):
        require_same(_probe(generator, order, condition, n, batch_size), content.probe)
        values = _follow(generator, chooser, order, condition, n, batch_size, None)
    require_same(values_digest(values), content.digest)
    if progress is not None:
        progress(n * space.scalars, n * space.scalars)
    return Decoded(values, side, label)


def decode_values(
    generator: Generator,
    blob: bytes,
    condition: Condition | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, bytes]:
    """The values, int64 ``[n, N, *event]``, and the side bytes: the first two parts of :func:`decode`."""
    values, side, _ = decode(generator, blob, condition, progress)
    return values, side


def _follow(
    generator: Generator,
    chooser: Chooser,
    order: Order,
    condition: Condition,
    n: int,
    batch_size: int,
    given: Tensor | None,
) -> Tensor:
    """Walk over all items, batch after batch: int64 ``[n, N, *event]``."""
    device, space = next(generator.parameters()).device, generator.space
    order = order.to(device)
    out = [torch.zeros(0, space.n, *space.event, dtype=torch.int64)]
    for begin in range(0, n, batch_size):
        part = slice(begin, min(begin + batch_size, n))
        told = condition.map(lambda t, part=part: t[part].to(device))
        shown = None if given is None else given[part].to(device)
        out.append(walk(generator, chooser, part.stop - begin, order, told, given=shown).values.cpu())
    return torch.cat(out)


def _probe(generator: Generator, order: Order, condition: Condition, n: int, batch_size: int) -> bytes:
    """Probe in the shape of the first batch; nothing where there are no items."""
    device, rows = next(generator.parameters()).device, min(n, batch_size)
    told = condition.map(lambda t: t[:rows].to(device))
    return probe(generator, rows, order.to(device), told) if n else bytes(4)


def check_values(space: Space, values: Tensor, order: Order) -> None:
    """Refuse values that would not come back.

    Raises:
        DataError: wrong shape or type, categories that do not exist, symbols behind the stop symbol.
    """
    shape = (space.n, *space.event)
    if tuple(values.shape[1:]) != shape or values.dim() == 0:
        raise DataError(
            f"values have shape {tuple(values.shape)}, the model codes [items, {str(shape)[1:-1].rstrip(',')}]"
        )
    if values.dtype != torch.int64:
        raise DataError(f"values are {values.dtype}, the model codes int64 categories; encode them with its tokenizer")
    values = values.cpu()
    sizes = space.site_sizes().reshape(space.n, *[1] * len(space.event))
    wrong = (values < 0) | (values >= sizes)
    if bool(wrong.any()):
        place = torch.nonzero(wrong)[0].tolist()
        raise DataError(
            f"item {place[0]} has value {int(values[tuple(place)])} at site {place[1]}, which has the categories "
            f"0 to {int(space.site_sizes()[place[1]]) - 1} only; encode the data with the model's own tokenizer"
        )
    if space.stop is not None and not space.event and order.is_raster:
        stopped = (values == space.stop).long().cumsum(1) > 0
        wrong = stopped & (values != space.stop)
        if bool(wrong.any()):
            item, site = torch.nonzero(wrong)[0].tolist()
            raise DataError(
                f"item {item} goes on at site {site} behind the stop symbol {space.stop}; fill the rest with that "
                "symbol"
            )


def _checked(space: Space, condition: Condition | None, n: int) -> Condition:
    """The condition on the CPU, if it fits the space and the number of items."""
    condition = (condition or Condition()).map(lambda t: t.detach().cpu())
    for name, part in zip(("label", "vector", "site"), condition.parts()):
        if part is not None and len(part) != n:
            raise DataError(f"the condition has {len(part)} rows of {name} for {n} items; give one per item")
    label = condition.label
    if label is not None and n and (int(label.min()) < -1 or int(label.max()) >= space.classes):
        raise DataError(
            f"labels run from {int(label.min())} to {int(label.max())}, the model knows 0 to {space.classes - 1} "
            "and -1 for none"
        )
    return condition


def _told(condition: Condition) -> bytes:
    """What the decoder's conditions are compared with: 8 bytes of SHA-256; none if there is nothing to tell."""
    if condition.vector is None and condition.site is None:
        return b""
    digest = hashlib.sha256()
    for part in (condition.vector, condition.site):
        digest.update(b"-" if part is None else part.to(torch.float32).contiguous().numpy().astype("<f4").tobytes())
    return digest.digest()[:8]
