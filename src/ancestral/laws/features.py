"""Laws of networks: what features may depend on, and that both ways to them agree."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ancestral import native
from ancestral.generator import Generator
from ancestral.heads.nested import Nested
from ancestral.laws.exam import (
    TOLERANCE,
    Exam,
    others,
    require,
)
from ancestral.networks.base import take
from ancestral.order import Order
from ancestral.space import Condition


def causality(exam: Exam) -> None:
    """A site's features do not depend on values of equal or higher rank: the Jacobian is exactly zero there."""
    values = exam.items[:4]
    for order in exam.orders(len(values)):
        for condition in exam.conditions(len(values)):
            check_causality(exam.generator, values, order, condition)


def check_causality(generator: Generator, values: Tensor, order: Order, condition: Condition | None = None) -> None:
    """:func:`causality` of a generator, and of the models nested in its head, for one order."""
    network, n = generator.network, generator.space.n
    rank = order.expand(len(values)).rank
    captured: list[tuple[Tensor, Tensor]] = []

    def capture(module: torch.nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        out = out.detach().requires_grad_()
        captured.append((args[1], out))
        return out

    embed = getattr(network, "embed", None)
    if embed is not None:
        handle = embed.register_forward_hook(capture)
        try:
            with torch.enable_grad():
                features = network(values, order, condition)
        finally:
            handle.remove()
        direction = torch.randn(features.shape[-1], generator=torch.Generator().manual_seed(0))
        sees = False
        for site in range(n) if captured and features.requires_grad else ():
            inputs = [out for _, out in captured]
            grads = torch.autograd.grad(
                (features[:, site] @ direction).sum(), inputs, retain_graph=True, allow_unused=True
            )
            for (sites, _), grad in zip(captured, grads, strict=True):
                if grad is None:
                    continue
                at = rank.gather(1, sites.expand(len(values), sites.shape[-1]))
                unseen = at >= rank[:, site, None]
                leak = float(grad[unseen].abs().max()) if bool(unseen.any()) else 0.0
                require(
                    leak == 0.0,
                    f"the features of site {site} depend on values that are drawn with it or later: their derivative "
                    f"is {leak:.3g}, not 0, under {order}",
                )
                sees = sees or bool((grad[~unseen] != 0).any())
        require(
            sees or not captured or order.n_sets == 1,
            f"no site's features depend on any value seen before it, under {order}",
        )
    # Values may enter by other ways than the embedding: changing unseen ones must change nothing.
    other = others(generator, values)
    with torch.no_grad():
        before = network(values, order, condition)
        for k in range(order.n_sets):
            hidden = (rank >= k).reshape(*rank.shape, *[1] * (values.dim() - 2))
            after = network(torch.where(hidden, other, values), order, condition)
            moved = float((after - before)[rank == k].abs().max())
            require(
                moved <= 1e-6,
                f"the features of set {k} move by {moved:.3g} when values that are drawn with it or later change, "
                f"under {order}",
            )
    if network.looks:
        _check_looks(generator, values, other, order, condition)
    if isinstance(generator.head, Nested):
        inner = generator.head.generator
        nested = values.reshape(-1, inner.space.n, *inner.space.event)[:8]
        vector = torch.randn(len(nested), inner.space.vector, generator=torch.Generator().manual_seed(1))
        check_causality(inner, nested, inner.order.scoring(), Condition(vector=vector))


@torch.no_grad()
def _check_looks(
    generator: Generator, values: Tensor, other: Tensor, order: Order, condition: Condition | None
) -> None:
    """What a set is told while it is drawn depends on the sets before and on itself alone."""
    network, rank = generator.network, order.expand(len(values)).rank
    now, time = _moment(values)
    before = network.look_all(values, order, condition, now, time)
    for k in range(order.n_sets):
        event = (rank >= k).reshape(*rank.shape, *[1] * (values.dim() - 2))
        apart = (rank != k).reshape(*rank.shape, *[1] * (values.dim() - 2))
        after = network.look_all(
            torch.where(event, other, values),
            order,
            condition,
            torch.where(apart, -now, now),
            torch.where(rank != k, 1 - time, time),
        )
        moved = float((after - before)[rank == k].abs().max())
        require(
            moved <= 1e-6,
            f"what set {k} is told while it is drawn moves by {moved:.3g} when later values or other sets' change, "
            f"under {order}",
        )


def _moment(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values that are being drawn, and how far, ``[B, N]``."""
    chance = torch.Generator().manual_seed(3)
    return torch.randn(values.shape, generator=chance), torch.rand(values.shape[:2], generator=chance)


def incremental(exam: Exam) -> None:
    """Features found set by set are those of one pass over all sites."""
    values = exam.items[:4]
    for order in exam.orders(len(values)):
        for condition in exam.conditions(len(values)):
            check_incremental(exam.generator, values, order, condition)


@torch.no_grad()
def check_incremental(generator: Generator, values: Tensor, order: Order, condition: Condition | None = None) -> None:
    """:func:`incremental` of a generator for one order, by PyTorch alone and by compiled kernels where there are some.

    Two passes over different items and one that begins in the middle run interleaved, so that a state which they
    share by mistake shows.
    """
    with native.without():
        full = generator.network(values, order, condition)
        _check_steps(generator, values, order, condition, full, "step by step")
    if native.available():
        _check_steps(generator, values, order, condition, full, "step by step by the compiled kernels")


def _check_steps(
    generator: Generator, values: Tensor, order: Order, condition: Condition | None, full: Tensor, how: str
) -> None:
    network, condition = generator.network, condition or Condition()
    now, time = _moment(values)
    looked = network.look_all(values, order, condition, now, time) if network.looks else None
    flipped = values.flip(0)
    other = order.items(torch.arange(len(values)).flip(0))
    back = condition.map(lambda t: t.flip(0))
    middle = order.n_sets // 2
    begins = [(values, order, condition, 0), (flipped, other, back, 0), (values, order, condition, middle)]
    caches = [network.start(len(v), o, c, v if known else None, known) for v, o, c, known in begins if known < o.n_sets]
    lasts: list[Tensor | None] = [None] * len(caches)
    for k in range(order.n_sets):
        for number, (cache, (v, o, _, known)) in enumerate(zip(caches, begins)):
            if k < known:
                continue
            features = network.step(cache, lasts[number])
            lasts[number] = take(v, o.sets[k])
            truth = take(full.flip(0) if number == 1 else full, o.sets[k])
            require(
                features.shape == truth.shape, f"step gives features {tuple(features.shape)}, not {tuple(truth.shape)}"
            )
            off = float((features - truth).abs().max())
            require(
                off <= TOLERANCE * max(1.0, float(truth.abs().max())),
                f"features of set {k} found {how}{f' from set {known}' if known else ''} differ by {off:.3g} "
                f"from those of one pass, under {order}",
            )
            if looked is None or number == 1:
                continue
            for rows in (slice(0, len(v)), slice(1, 2)):
                found = network.look(cache, take(now, o.sets[k])[rows], take(time, o.sets[k])[rows], rows)
                off = float((found - take(looked, o.sets[k])[rows]).abs().max())
                require(
                    off <= TOLERANCE * max(1.0, float(looked.abs().max())),
                    f"what set {k} is told while it is drawn differs by {off:.3g} from one pass, under {order}",
                )
