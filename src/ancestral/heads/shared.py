"""A head that shares its weights with the network's embedding of the values."""

from __future__ import annotations

from torch import Tensor

from ancestral import native
from ancestral.heads.base import Finite, Head
from ancestral.networks.base import Network, ValueEmbedding
from ancestral.quantisation import Quantised
from ancestral.space import Space


class Shared(Head):
    """Logits by the transposed embedding (Press and Wolf 2016, arXiv:1608.05859); it has no weights of its own.

    Args:
        network: whose ``embed.table`` is shared. It is referred to, not owned: its weights are saved once.
    """

    def __init__(self, network: Network):
        super().__init__()
        self._owner = (network,)  # a tuple, so that torch does not register the network a second time

    def build(self, space: Space, width: int) -> Shared:
        if not space.discrete or space.event or isinstance(space.sizes, tuple):
            raise ValueError("a shared head needs one symbol of one vocabulary per site; use Categorical")
        return self

    @property
    def owner(self) -> Network:
        """The network whose embedding it is."""
        return self._owner[0]

    def forward(self, features: Tensor, sites: Tensor) -> Finite:
        embed = self._owner[0].embed
        assert isinstance(embed, ValueEmbedding)
        table = embed.table
        if isinstance(table, Quantised):
            return Finite(table.product(features))
        return Finite(native.linear(features, table.weight))
