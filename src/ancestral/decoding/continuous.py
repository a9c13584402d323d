"""Continuous batching: streams of any lengths are drawn in one batch that they join and leave at any step.

Token generation is kept apart from reading the prefix, and fused over all streams whatever their places
(iteration-level scheduling: Yu et al. 2022, Orca; temporal fusion: Yao et al. 2023, Flover, arXiv:2305.13484).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ancestral.decoding.decoders import Ancestral, Request
from ancestral.decoding.mixing import Mixed
from ancestral.decoding.ngrams import History
from ancestral.decoding.walk import Draw
from ancestral.errors import UnsupportedError
from ancestral.heads.base import Finite, Leaf
from ancestral.networks.slots import slots
from ancestral.noise import Noise
from ancestral.space import Condition

if TYPE_CHECKING:
    from ancestral.generator import Generator


@dataclass(eq=False)
class Job:
    """A stream to go on with.

    Attributes:
        prefix: int64 ``[T]``, what is known of it.
        length: symbols to add at most, at least 1.
        seed: of the stream's own random numbers (:func:`ancestral.noise.item_seeds`).
        options: temperature, top_k, top_p, min_p.
        ends: symbols that end the stream when they are drawn.
        top: report the log-probability of every symbol drawn, and this many of the most probable ones; None for none.
        condition: what the model is told, for one item.
        blocks: blocks of its random numbers that were used before.
    """

    prefix: Tensor
    length: int
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    ends: tuple[int, ...] = ()
    top: int | None = None
    condition: Condition = field(default_factory=Condition)
    blocks: int = 0


@dataclass(frozen=True)
class Drawn:
    """A symbol that was drawn.

    Attributes:
        job: the stream that it belongs to.
        symbol: its number.
        finish: why the stream is over with it: "end" (it is one of those that end it), "length", or "" if it is not.
        log_prob: nats, of the model's own distribution before temperature and truncation; None if not asked for.
        top: the most probable symbols there and their log-probabilities, most probable first.
    """

    job: Job
    symbol: int
    finish: str
    log_prob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class _Row:
    """A stream on its way."""

    def __init__(self, job: Job, history: History | None):
        self.job, self.history = job, history
        self.stream: list[int] = job.prefix.tolist()
        self.drawn = 0
        self.key = tuple(sorted(job.options.items()))


class Engine:
    """Draws streams that come and go, each as if it were alone.

    The symbols of a stream depend on its own seed only. (Matrix products of another number of rows may round
    otherwise, which shows where a random number falls that close to the edge between two symbols.)

    Args:
        generator: a built generator that draws one finite value after the other.
        context: symbols kept when a stream's window is full and moves on; None ends the stream there.
        capacity: streams drawn together at most.
        prefill: symbols of prefixes read in one step at most, but for a single longer one: those on their way wait
            meanwhile.

    Raises:
        UnsupportedError: real values, several values per site, or sets of several sites.
    """

    def __init__(self, generator: Generator, context: int | None, capacity: int = 64, prefill: int = 1024):
        space = generator.space
        if not generator.head.finite or space.event or not space.discrete:
            raise UnsupportedError("continuous batching needs one finite value per site")
        self.order = generator.order.scoring().to(next(generator.parameters()).device)
        if self.order.batched or not self.order.sequential:
            raise UnsupportedError("continuous batching needs an order of single sites that all items share")
        if context is not None and not 0 <= context < space.n:
            raise ValueError(f"context={context} must be below the window's {space.n} symbols")
        if capacity < 1 or prefill < 1:
            raise ValueError(f"capacity={capacity} and prefill={prefill} must be at least 1")
        self.generator, self.context, self.capacity, self.prefill = generator, context, capacity, prefill
        self.waiting: deque[_Row] = deque()
        self._slots = slots(generator.network, self.order, capacity)
        self._rows: list[_Row] = []
        self._last: list[int] = []

    # -- the queue

    def submit(self, job: Job) -> None:
        """Let a stream wait for its turn.

        Raises:
            ValueError: nothing to draw, or a prefix that leaves no room where windows do not move on.
        """
        n = self.generator.space.n
        if job.length < 1:
            raise ValueError(f"length={job.length} must be at least 1")
        if self.context is None and len(job.prefix) >= n:
            raise ValueError(f"a prefix of {len(job.prefix)} symbols leaves no room in a window of {n}")
        Draw(Noise(torch.zeros(1, dtype=torch.int64)), **job.options)  # refuses options that make no sense
        mixture = self.generator.mixture
        self.waiting.append(_Row(job, None if mixture is None else mixture.history(job.prefix.tolist())))

    def cancel(self, job: Job) -> None:
        """Forget a stream, waiting or on its way; one that is over already is no matter."""
        for waiting in [row for row in self.waiting if row.job is job]:
            self.waiting.remove(waiting)
        for number in [i for i, row in enumerate(self._rows) if row.job is job]:
            self._leave(number)

    @property
    def active(self) -> int:
        """Streams on their way."""
        return len(self._rows)

    @property
    def busy(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self._rows or self.waiting)

    def run(self, jobs: Sequence[Job]) -> list[list[int]]:
        """Draw all ``jobs`` to their ends: the symbols added to each, an ending one included."""
        out: dict[int, list[int]] = {id(job): [] for job in jobs}
        for job in jobs:
            self.submit(job)
        while self.busy:
            for drawn in self.step():
                if id(drawn.job) in out:
                    out[id(drawn.job)].append(drawn.symbol)
        return [out[id(job)] for job in jobs]

    # -- one step

    @torch.no_grad()
    def step(self) -> list[Drawn]:
        """One symbol more for every stream on its way, those that join now included."""
        parts: list[Tensor] = []
        if self._rows:
            last = torch.tensor(self._last, device=self.order.rank.device)[:, None]
            parts.append(self._slots.step(last))
        parts += self._admit()
        if not parts:
            return []
        sites = self._slots.sites()
        features = parts[0] if len(parts) == 1 else torch.cat(parts)
        leaf = self.generator.head(features, sites)
        assert isinstance(leaf, Finite)
        chooser = _Rowwise(self._rows)
        mixture = self.generator.mixture
        if mixture is None:
            chosen = chooser(leaf, None, None)
        else:
            histories = [row.history for row in self._rows if row.history is not None]
            chosen = Mixed(chooser, mixture, histories)(leaf, None, None)
        self._last = chosen[:, 0].tolist()
        return self._settle(chooser.report(self._last))

    def _admit(self) -> list[Tensor]:
        """Read the prefixes of those that join: features ``[R, 1, D]`` of the next sites, in the order of the rows."""
        features: list[Tensor] = []
        read, space, network = 0, self.generator.space, self.generator.network
        device = self.order.rank.device
        while self.waiting and len(self._rows) < self.capacity:
            seen = self._seen(self.waiting[0])
            if read and read + seen > self.prefill:
                break
            # Prefixes of one length are read together.
            room = min(self.capacity - len(self._rows), max(1, (self.prefill - read) // max(seen, 1)))
            group = [row for row in self.waiting if self._seen(row) == seen][:room]
            for row in group:
                self.waiting.remove(row)
            values = torch.zeros(len(group), space.n, dtype=torch.int64)
            for to, row in zip(values, group, strict=True):
                if seen:
                    to[self.order.permutation[:seen].cpu()] = torch.tensor(row.stream[-seen:])
            told = group[0].job.condition
            for row in group[1:]:
                told = Condition.join(told, row.job.condition)
            told = told.map(lambda t: t.to(device))
            cache = network.start(len(group), self.order, told, values.to(device) if seen else None, seen)
            features.append(network.step(cache))
            self._slots.join(cache)
            self._rows += group
            read += max(seen, 1) * len(group)
        return features

    def _seen(self, row: _Row) -> int:
        """Symbols in the window that a stream starts with."""
        known, n = len(row.stream), self.generator.space.n
        return known if known < n else min(known, max(self.context or 0, 1))

    def _settle(self, reports: list[tuple[float | None, tuple[tuple[int, float], ...]]]) -> list[Drawn]:
        """Take over what was drawn, and let go of streams that are over or whose window is full."""
        out = []
        for row, symbol, (log_prob, top) in zip(self._rows, self._last, reports, strict=True):
            row.stream.append(symbol)
            row.drawn += 1
            finish = ""
            if symbol in row.job.ends:
                finish = "end"
            elif row.drawn >= row.job.length:
                finish = "length"
            out.append(Drawn(row.job, symbol, finish, log_prob, top))
        full = (self._slots.places[: len(self._rows)] + 1 >= self.generator.space.n).tolist()
        for number in reversed(range(len(self._rows))):
            row, drawn = self._rows[number], out[number]
            if drawn.finish:
                self._leave(number)
            elif full[number]:
                self._leave(number)
                if self.context is None:
                    out[number] = Drawn(row.job, drawn.symbol, "length", drawn.log_prob, drawn.top)
                else:  # its window moves on: read again from there, before anybody else
                    self.waiting.appendleft(row)
        return out

    def _leave(self, number: int) -> None:
        self._slots.leave(number)
        for kept in (self._rows, self._last):
            moved: Any = kept.pop()
            if number < len(kept):
                kept[number] = moved


class _Rowwise:
    """Draws for rows that each have options and random numbers of their own."""

    def __init__(self, rows: list[_Row]):
        self.rows = rows
        self.leaf: Finite | None = None

    def __call__(self, leaf: Leaf, given: Tensor | None, alive: Tensor | None) -> Tensor:
        assert isinstance(leaf, Finite)
        self.leaf = leaf
        device = leaf.logits.device
        seeds = torch.tensor([row.job.seed for row in self.rows], dtype=torch.int64, device=device)
        counter = torch.tensor([row.job.blocks + row.drawn for row in self.rows], dtype=torch.int64, device=device)
        groups: dict[Any, list[int]] = {}
        for number, row in enumerate(self.rows):
            groups.setdefault(row.key, []).append(number)
        if len(groups) == 1:
            return Draw(Noise(seeds, counter), **self.rows[0].job.options)(leaf, None, None)
        chosen = torch.zeros(len(self.rows), 1, dtype=torch.int64, device=device)
        for members in groups.values():
            at = torch.tensor(members, device=device)
            draw = Draw(Noise(seeds[at], counter[at]), **self.rows[members[0]].job.options)
            chosen[at] = draw(Finite(leaf.logits[at]), None, None)
        return chosen

    def report(self, chosen: list[int]) -> list[tuple[float | None, tuple[tuple[int, float], ...]]]:
        """Per row the log-probability of the symbol drawn and the most probable ones, where they were asked for."""
        nothing: tuple[float | None, tuple[tuple[int, float], ...]] = (None, ())
        out = [nothing] * len(self.rows)
        asked = [number for number, row in enumerate(self.rows) if row.job.top is not None]
        if not asked:
            return out
        assert self.leaf is not None
        log_probs = torch.log_softmax(self.leaf.logits[asked, 0].double(), -1)
        most = max(self.rows[number].job.top or 0 for number in asked)
        values, symbols = log_probs.topk(min(most, log_probs.shape[-1]), -1)
        own = log_probs[torch.arange(len(asked)), [chosen[number] for number in asked]].tolist()
        for at, number in enumerate(asked):
            count = self.rows[number].job.top or 0
            best = zip(symbols[at, :count].tolist(), values[at, :count].tolist(), strict=True)
            out[number] = own[at], tuple(best)
        return out


@dataclass(frozen=True)
class Continuous:
    """The items of a request, or streams of different lengths, by continuous batching: exact samples of the model.

    What :class:`Engine` cannot draw (guidance, sets of several sites, known sites that do not come first) is drawn by
    :class:`ancestral.decoding.decoders.Ancestral`; the values are the same either way.

    Args:
        capacity: items drawn together at most.
        prefill: symbols of prefixes read in one step at most.
    """

    capacity: int = 64
    prefill: int = 1024

    def __call__(self, generator: Generator, request: Request) -> Tensor:
        order, space = generator.order.scoring(), generator.space
        fits = order.sequential and not order.batched and generator.head.finite and not space.event and space.discrete
        if not fits or request.guidance or request.order is not None or request.around is not None:
            return Ancestral()(generator, request)
        noise = request.noise
        batch, device = noise.batch, noise.seeds.device
        values = torch.zeros(batch, space.n, dtype=torch.int64, device=device)
        counts = [0] * batch
        if request.known is not None and request.given is not None:
            leading = request.known.sum(1)
            if not bool((request.known == (order.rank.to(device) < leading[:, None])).all()):
                return Ancestral()(generator, request)
            counts = leading.tolist()
            values = torch.where(request.known, request.given, values)
        stop = space.stop if order.is_raster else None
        ends = () if request.ends is None else tuple(request.ends.tolist())
        jobs, rows = [], []
        for i, count in enumerate(counts):
            prefix = values[i, order.permutation[:count].to(device)].cpu()
            left = space.n - count if request.sets is None else min(request.sets, space.n - count)
            if left and not (stop is not None and bool((prefix == stop).any())):
                told = request.condition.map(lambda t, i=i: t[i : i + 1])
                final = ends if stop is None else (*ends, stop)
                blocks = int(noise.counter if isinstance(noise.counter, int) else noise.counter[i])
                seed = int(noise.seeds[i])
                jobs.append(Job(prefix, left, seed, request.options, final, condition=told, blocks=blocks))
                rows.append(i)
            elif stop is not None:
                values[i, count:] = stop
        engine = Engine(generator, None, self.capacity, self.prefill)
        for i, job, added in zip(rows, jobs, engine.run(jobs), strict=True):
            sites = order.permutation[len(job.prefix) :].to(device)
            values[i, sites[: len(added)]] = torch.tensor(added, device=device)
            if stop is not None and added[-1] == stop:
                values[i, sites[len(added) :]] = stop
        noise.counter = noise.counter + max((job.length for job in jobs), default=0)
        return values

    def streams(
        self,
        generator: Generator,
        prefixes: list[Tensor],
        length: int,
        context: int,
        seeds: Tensor,
        options: dict[str, Any],
        ends: tuple[int, ...],
    ) -> list[Tensor]:
        """As :func:`ancestral.decoding.streams.continue_streams`, in one batch of streams of any lengths."""
        engine = Engine(generator, context, self.capacity, self.prefill)
        seed = seeds.tolist()
        jobs = [Job(prefix, length, seed[i], options, ends) for i, prefix in enumerate(prefixes)]
        out = []
        for prefix, added in zip(prefixes, engine.run(jobs), strict=True):
            kept = added[:-1] if added[-1] in ends else added
            out.append(torch.cat([prefix, torch.tensor(kept, dtype=torch.int64)]))
        return out
