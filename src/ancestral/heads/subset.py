"""A head that knows some of the symbols only: the others have probability zero."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor, nn

from ancestral import native
from ancestral.errors import UnsupportedError
from ancestral.heads.base import Finite, Head
from ancestral.heads.categorical import Categorical
from ancestral.heads.shared import Shared
from ancestral.networks.base import ValueEmbedding
from ancestral.noise import Noise
from ancestral.quantisation import Quantised
from ancestral.space import Space


class SomeFinite(Finite):
    """Categories of which only some are possible.

    Args:
        some: over the V possible ones.
        symbols: which they are, int64 ``[V]``, ascending.
        size: K, of all categories.
    """

    def __init__(self, some: Finite, symbols: Tensor, size: int):
        self.some, self.symbols, self.size = some, symbols, size

    @cached_property
    def logits(self) -> Tensor:  # type: ignore[override]
        return spread(self.some.logits, self.symbols, self.size, float("-inf"))

    def log_probs(self) -> Tensor:
        return spread(self.some.log_probs(), self.symbols, self.size, float("-inf"))

    def draw(self, noise: Noise) -> Tensor:
        return self.symbols[self.some.draw(noise)]


def spread(x: Tensor, symbols: Tensor, size: int, rest: float) -> Tensor:
    """``[..., V]`` as ``[..., K]`` with column j at ``symbols[j]`` and ``rest`` everywhere else."""
    return x.new_full((*x.shape[:-1], size), rest).index_copy_(-1, symbols, x)


class Subset(Head):
    """Logits of some symbols by a linear map, the same for all sites but for its bias; no other symbol is possible.

    The head of a draft with a pruned vocabulary (FR-Spec: Zhao et al. 2025, arXiv:2502.14856). It is made from another
    head by :meth:`of`.

    Args:
        linear: features to logits ``[V]``; without bias.
        bias: float ``[V]``, or ``[N, V]`` with a row per site; None for none.
        symbols: int64 ``[V]``, ascending.
        size: K, of the whole vocabulary.
    """

    symbols: Tensor

    def __init__(self, linear: nn.Linear, bias: Tensor | None, symbols: Tensor, size: int):
        super().__init__()
        self.linear, self.size = linear, size
        self.bias = None if bias is None else nn.Parameter(bias)
        self.register_buffer("symbols", symbols)

    @classmethod
    def of(cls, head: Head, symbols: Tensor) -> Subset:
        """The rows of ``symbols`` (int64 ``[V]``, any order) of a :class:`Shared` or :class:`Categorical` head, copied.

        Raises:
            UnsupportedError: another head, or one with a map per site.
        """
        symbols = symbols.sort().values
        bias: Tensor | None = None
        if isinstance(head, Shared):
            embed = head.owner.embed
            assert isinstance(embed, ValueEmbedding)
            table = embed.table
            size = table.num_embeddings
            weight = table.read(symbols) if isinstance(table, Quantised) else table.weight[symbols]
        elif isinstance(head, Categorical) and not head.own:
            size, weight, bias = len(head.weight), head.weight[symbols], head.bias[..., symbols].detach()
        else:
            raise UnsupportedError(
                f"the vocabulary of a {type(head).__name__} head cannot be pruned; only that of one linear map for all "
                "sites can: leave vocabulary= out"
            )
        linear = nn.Linear(weight.shape[1], len(symbols), bias=False, device=weight.device)
        linear.weight = nn.Parameter(weight.detach())
        return cls(linear, bias, symbols, size).train(head.training)

    def build(self, space: Space, width: int) -> Subset:
        return self

    def forward(self, features: Tensor, sites: Tensor) -> Finite:
        plain = type(self.linear) is nn.Linear
        logits = native.linear(features, self.linear.weight) if plain else self.linear(features)
        if self.bias is not None:
            logits = logits + (self.bias if self.bias.dim() == 1 else self.bias[sites])
        return SomeFinite(Finite(logits), self.symbols, self.size)
