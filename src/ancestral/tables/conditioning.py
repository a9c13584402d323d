"""Rows whose columns lie in given sets and ranges, drawn exactly: no row is rejected or weighed afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ancestral.decoding.complete import complete_values
from ancestral.decoding.decoders import Ancestral, Decoder
from ancestral.decoding.walk import Draw
from ancestral.errors import DataError, UnsupportedError
from ancestral.noise import Noise, hash64, item_seeds
from ancestral.order import Order
from ancestral.space import Condition
from ancestral.tables.conditionals import columns_of, next_site
from ancestral.tables.restrictions import Blocks, split_given
from ancestral.tokenizers.clauses import Clauses

if TYPE_CHECKING:
    from ancestral.generator import Generator
    from ancestral.model import Model

MOST_CONTEXTS = 1 << 17
"""Most combinations of values of all restricted columns but the last that are enumerated."""
MOST_ROWS = 1 << 20
"""Most beginnings of values that are weighed on the way there."""
MOST_BLOCKS = 1 << 22
"""Most blocks of a column, over all those combinations."""
CELLS = 1 << 23
"""Rows times symbols that are weighed together."""


@dataclass
class Weighed:
    """All that agrees with a condition, as blocks of rows that share the values at their first sites.

    Attributes:
        order: known sites, then restricted columns one after the other, then the rest; site by site.
        values: int64 ``[C, N]``, combinations of the restricted columns but the last.
        context: int64 ``[V]``, the combination that a block belongs to.
        symbols: int64 ``[V, s]``, the block's first symbols of the last column.
        depth: int64 ``[V]``, how many of these count.
        log_prob: float64 ``[V]``, of a block given the known sites, nats.
        fixed: sites known in every block of ``values``.
        last: the last restricted column's sites.
    """

    order: Order
    values: Tensor
    context: Tensor
    symbols: Tensor
    depth: Tensor
    log_prob: Tensor
    fixed: int
    last: slice


@torch.no_grad()
def weigh(
    model: Model,
    values: Tensor,
    known: Tensor,
    blocks: list[Blocks],
    *,
    label: int | None = None,
    order: Order | None = None,
    options: Mapping[str, Any] | None = None,
) -> Weighed:
    """Sum the model's probabilities over all values that columns are restricted to.

    The restricted columns follow the known ones. Each is a tree of symbols, coarse to fine: where all cells behind a
    prefix are wanted, its probability counts as a whole; where some are, its continuations are weighed in turn. All
    columns but the last, that of most cells, are enumerated cell by cell, since what follows depends on these.

    Args:
        model: any-order, or with an order of its columns that begins with these.
        values, known: ``[N]`` of the single cells.
        blocks: the restricted columns.
        label: class, -1 or None for none.
        order: of the sites that are not restricted.
        options: temperature, top_k, top_p, min_p, which change the distribution that is conditioned.

    Raises:
        DataError: the model gives the condition no probability.
        UnsupportedError: another order would be needed, or too many combinations.
    """
    generator = model.generator
    ranked = sorted(blocks, key=lambda b: (b.count, b.sites.start)) if generator.any_order else sorted(
        blocks, key=lambda b: int(generator.order.scoring().rank[b.sites.start])
    )  # fmt: skip
    full = _order(model, known, ranked, order)
    draw = Draw(Noise(torch.zeros(1, dtype=torch.int64)), **(options or {}))
    told = Condition() if label is None else Condition(label=torch.tensor([label]))
    contexts, weight = values[None].clone(), torch.zeros(1, dtype=torch.float64)
    fixed = int(known.sum())
    for column in ranked[:-1]:
        found = _descend(generator, full, contexts, weight, fixed, column, told, draw, cells=True)
        # A cell may have several codes: what follows is given the cell, in its proper one.
        both, index = torch.unique(torch.cat([found[0][:, None], found[1]], 1), dim=0, return_inverse=True)
        weight = _summed(found[3], index, len(both))
        contexts = contexts[both[:, 0]]
        contexts[:, column.sites] = both[:, 1:]
        fixed += len(column.sizes)
        if len(contexts) > MOST_CONTEXTS:
            raise UnsupportedError(
                f"the columns {_names(ranked)} are restricted to more combinations than can be weighed "
                f"({MOST_CONTEXTS:,}); narrow all but one of them to fewer values"
            )
    found = _descend(generator, full, contexts, weight, fixed, ranked[-1], told, draw, cells=False)
    if not len(found[3]):
        raise DataError(f"the model gives these values of {_names(ranked)} no probability at all; restrict them less")
    return Weighed(full, contexts, *found, fixed, ranked[-1].sites)


def _descend(
    generator: Generator,
    order: Order,
    contexts: Tensor,
    weight: Tensor,
    fixed: int,
    column: Blocks,
    told: Condition,
    draw: Draw,
    cells: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Blocks of a column's symbols that are wanted as a whole, after each of the contexts ``[C, N]``.

    Args:
        generator: built.
        order: in which the column's sites follow the first ``fixed``.
        contexts, weight: values at those sites, and their log-probabilities ``[C]``.
        fixed: how many sites are known.
        column: the restricted one.
        told: what the model is told.
        draw: changes the probabilities.
        cells: go down to single cells, and give their proper symbols.

    Returns:
        context ``[V]``, symbols ``[V, s]``, depth ``[V]`` and log-probability ``[V]`` of every block.
    """
    count = len(column.sizes)
    which = torch.arange(len(contexts))
    prefixes, at = np.zeros((1, 0), np.int64), torch.zeros(len(contexts), dtype=torch.int64)
    found: list[tuple[Tensor, ...]] = [
        (which[:0], torch.zeros(0, count, dtype=torch.int64), which[:0], torch.zeros(0, dtype=torch.float64))
    ]
    for digit in range(count):
        state = torch.from_numpy(column.children(prefixes))
        begun = torch.from_numpy(prefixes)
        parts = []
        for part in torch.arange(len(which)).split(max(1, CELLS // column.sizes[digit])):
            rows = contexts[which[part]]
            rows[:, column.sites.start : column.sites.start + digit] = begun[at[part]]
            log_probs = _adjusted(next_site(generator, order, rows, fixed + digit, told), draw)
            log_probs = log_probs[:, : column.sizes[digit]] + weight[part, None]
            kept = state[at[part]]
            row, symbol = ((kept > 0) & ~log_probs.isneginf()).nonzero(as_tuple=True)
            parts.append((part[row], symbol, log_probs[row, symbol], kept[row, symbol]))
        row, symbol, chance, kept = (torch.cat(each) for each in zip(*parts))
        longer = torch.cat([begun[at[row]], symbol[:, None]], 1)
        done = kept >= (3 if cells else 2)
        if bool(done.any()):
            ends = longer[done]
            if cells:
                distinct, index = np.unique(ends.numpy(), axis=0, return_inverse=True)
                ends = torch.from_numpy(column.proper(distinct)[index.reshape(-1)])
            ends = torch.nn.functional.pad(ends, (0, count - ends.shape[1]))
            found.append((which[row[done]], ends, torch.full((len(ends),), digit + 1), chance[done]))
        which, weight, longer = which[row[~done]], chance[~done], longer[~done]
        if len(which) > MOST_ROWS or sum(len(each[0]) for each in found) > MOST_BLOCKS:
            raise UnsupportedError(
                f"column {column.name!r} is restricted to too many values to be weighed beside the other restricted "
                "columns; narrow one of them"
            )
        if not len(which):
            break
        prefixes, back = np.unique(longer.numpy(), axis=0, return_inverse=True)
        at = torch.from_numpy(back.reshape(-1))
    context, symbols, depth, chance = (torch.cat(each) for each in zip(*found))
    return context, symbols, depth, chance


def _summed(log_probs: Tensor, index: Tensor, count: int) -> Tensor:
    """Logarithms ``[count]`` of sums of probabilities whose logarithms ``[V]`` have equal ``index``."""
    most = torch.full((count,), float("-inf"), dtype=log_probs.dtype).scatter_reduce(0, index, log_probs, "amax")
    return most + torch.zeros_like(most).index_add(0, index, (log_probs - most[index]).exp()).log()


def _names(blocks: list[Blocks]) -> str:
    return " and ".join(repr(block.name) for block in blocks)


def _adjusted(log_probs: Tensor, draw: Draw) -> Tensor:
    """Normalised log-probabilities ``[B, K]`` under the options of the drawing."""
    if draw.plain:
        return log_probs
    return torch.log_softmax(draw.adjust(log_probs[:, None])[:, 0], -1)


def _order(model: Model, known: Tensor, blocks: list[Blocks], order: Order | None) -> Order:
    """Known sites, the columns' sites, and the rest."""
    generator = model.generator
    if order is not None and order.batched:
        raise DataError("sets and ranges in given= need one order for all rows; give order= one of shape [N]")
    base = (order or generator.order.scoring()).one_by_one().rank.cpu()
    n = len(base)
    rank = torch.where(known, base, base + (len(blocks) + 1) * n)
    for place, block in enumerate(blocks):
        rank[block.sites] = base[block.sites] + (place + 1) * n
    full = Order(rank)
    if not generator.any_order:
        own = generator.order.scoring()
        if not own.sequential or not bool((own.permutation.cpu() == full.permutation).all()):
            raise UnsupportedError(
                f"{model.name} draws its columns in one order only and cannot begin with "
                f"{_names(blocks)}; use an any-order recipe such as tabular-argn"
            )
    return full


def draw_given(
    model: Model,
    n: int,
    given: Mapping[str, Any],
    labels: Tensor | None = None,
    seed: int = 0,
    first: int = 0,
    order: Order | None = None,
    decoder: Decoder | None = None,
    guidance: float = 0.0,
    batch_size: int = 256,
    options: Mapping[str, Any] | None = None,
) -> Tensor:
    """Draw rows from the model's distribution given single cells, sets and ranges: values int64 ``[n, N]``.

    A block of :func:`weigh` is drawn by its probability, then the row goes on from it.

    Args:
        model: fitted to a table.
        n: how many rows.
        given: per column a cell, a collection of cells, or :func:`ancestral.between`.
        labels: class numbers ``[n]``.
        seed, first: the i-th row depends on ``seed`` and ``first + i`` only.
        order: in which the other sites are drawn.
        decoder, guidance: refused, since they follow no distribution that could be conditioned.
        batch_size: rows drawn together.
        options: temperature, top_k, top_p, min_p.

    Raises:
        DataError: a column or value that the model does not know, a condition without probability, or a decoder.
        UnsupportedError: a model that cannot be conditioned so, or too many combinations.
    """
    if isinstance(model.tokenizer, Clauses):
        raise UnsupportedError(
            f"{model.name} writes rows as text and goes on from single values of given= only; sets and ranges are for "
            "models of columns such as tabular-argn"
        )
    if decoder is not None or guidance:
        raise DataError(
            "sets and ranges in given= are weighed by the model's own probabilities; leave out decoder= and guidance="
        )
    tokenizer = columns_of(model)
    single, restricted = split_given(given)
    values, known = tokenizer.given(single)
    blocks = [Blocks(tokenizer, name, wanted) for name, wanted in restricted.items()]
    out = torch.zeros(n, len(values), dtype=torch.int64)
    seeds = item_seeds(seed, torch.arange(first, first + n))
    every = torch.full((n,), -1) if labels is None else labels
    for label in torch.unique(every).tolist():
        mine = torch.nonzero(every == label)[:, 0]
        found = weigh(
            model, values, known, blocks, label=None if labels is None else label, order=order, options=options
        )
        # The rest of a row must not be drawn by the numbers that chose its block.
        out[mine] = _complete(
            model.generator, found, _choose(found, seeds[mine]), hash64(seeds[mine] ^ 1),
            None if labels is None else every[mine], batch_size, dict(options or {}),
        )  # fmt: skip
    return out


def _choose(found: Weighed, seeds: Tensor) -> Tensor:
    """Number of a block for every item, int64 ``[n]``."""
    edges = torch.softmax(found.log_prob, 0).cumsum(0)
    u = Noise(seeds).uniform(1)[:, 0] * edges[-1]
    return torch.searchsorted(edges, torch.minimum(u, torch.nextafter(edges[-1], edges.new_zeros(()))), right=True)


def _complete(
    generator: Generator,
    found: Weighed,
    chosen: Tensor,
    seeds: Tensor,
    labels: Tensor | None,
    batch_size: int,
    options: dict[str, Any],
) -> Tensor:
    values = found.values[found.context[chosen]]
    begin, depth = found.last.start, found.depth[chosen]
    place = torch.arange(found.symbols.shape[1])
    values[:, found.last] = torch.where(place < depth[:, None], found.symbols[chosen], 0)
    known = (found.order.rank < found.fixed).expand(len(values), -1).clone()
    known[:, begin : begin + len(place)] = place < depth[:, None]
    return complete_values(
        generator,
        values,
        known,
        seeds=seeds,
        condition=Condition(label=labels),
        order=found.order,
        decoder=Ancestral(),
        guidance=0.0,
        options=options,
        batch_size=batch_size,
    ).values


__all__ = ["Weighed", "draw_given", "weigh"]
