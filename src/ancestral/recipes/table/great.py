"""GReaT: a causal language model of rows as text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ancestral.decoding.decoders import Ancestral, Request
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.noise import Noise, hash64
from ancestral.objectives import Likelihood
from ancestral.recipes.registry import Claim, recipe
from ancestral.space import Condition
from ancestral.tokenizers.clauses import Clauses, shuffle_clauses

if TYPE_CHECKING:
    from ancestral.generator import Generator


class ShuffledClauses(Likelihood):
    """Next-token loss with the clauses of every row in a fresh random order."""

    def loss(self, generator: Generator, values: Tensor, condition: Condition, noise: Noise, progress: float) -> Tensor:
        """Mean nats per symbol of ``values`` ``[B, N]``."""
        assert generator.space.stop is not None
        end = generator.space.stop - 1
        most = int((values == end).sum(1).max()) + 1
        shuffled = shuffle_clauses(values, end, noise.uniform(most))
        return super().loss(generator, shuffled, condition, noise, progress)


@dataclass(frozen=True)
class Redrawn:
    """Ancestral sampling; rows that do not name every column once with a value that fits are drawn again.

    Args:
        rows: tells which rows are well formed.
        tries: draws of a row at most; its last one stays, with missing cells where it makes no sense.
    """

    rows: Clauses
    tries: int = 10

    def __call__(self, generator: Generator, request: Request) -> Tensor:
        plain = Ancestral()
        values = plain(generator, request)
        for attempt in range(1, self.tries):
            bad = torch.nonzero(~self.rows.valid(values))[:, 0]
            if len(bad) == 0:
                break
            # An item's seeds depend on its own and on the attempt, so that its batch does not matter.
            again = replace(
                request,
                noise=Noise(hash64(request.noise.seeds[bad] + attempt)),
                condition=request.condition.map(lambda t, bad=bad: t[bad]),
                given=None if request.given is None else request.given[bad],
                known=None if request.known is None else request.known[bad],
            )
            values[bad] = plain(generator, again)
        return values


@recipe(
    "great",
    title="Language Models are Realistic Tabular Data Generators",
    paper="arXiv:2210.06280",
    authors="Borisov, Seßler, Leemann, Pawelczyk, Kasneci (2022)",
    tiny=dict(width=16, depth=1, heads=2, dropout=0.0, pieces="bytes", tries=3),
    toy="table",
    differs_from="gpt",
    claim=Claim(
        "a language model of textual rows in random order gives realistic tables, conditioned on any columns at no "
        "extra cost"
    ),
)
def great(
    width: int = 192,
    depth: int = 4,
    heads: int = 4,
    dropout: float = 0.1,
    pieces: str = "bpe",
    vocab: int = 1024,
    shuffled: bool = True,
    tries: int = 10,
) -> Model:
    """Rows are written out as "age is 39, sex is Female ..." with the columns in a fresh order each time.

    Because every order is trained, any columns can be given: their clauses are the beginning and the model goes on.
    What it writes is read back; a row that lacks a column, names one twice or has a value that the column cannot take
    is drawn again. Here the model is trained from nothing, where the paper starts from a pretrained GPT-2.

    A row has as many texts as its columns have orders, and the score is that of one of them (known cells in the order
    of the columns, then missing ones): a lower bound on the row's log-probability, over all strings, well formed or
    not. Samples follow the model given that the row is well formed.

    Reference:
        Borisov, Seßler, Leemann, Pawelczyk, Kasneci. Language models are realistic tabular data generators. 2022,
        arXiv:2210.06280.

    Args:
        width, depth, heads, dropout: of the transformer.
        pieces: "bpe" (learned from the table) or "bytes".
        vocab: byte-pair codes to learn.
        shuffled: random order of the columns in training; without it only the first columns can be given.
        tries: draws of a malformed row at most.
    """
    rows = Clauses(pieces, vocab)
    return Model(
        rows,
        "raster",
        CausalTransformer(width, depth, heads, dropout, targets=False),
        Categorical(per_site=False),
        objective=ShuffledClauses() if shuffled else Likelihood(),
        decoder=Redrawn(rows, tries),
        training=dict(lr=2e-3, batch_size=64, weight_decay=0.1),
    )
