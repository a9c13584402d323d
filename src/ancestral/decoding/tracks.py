"""One item followed along an order, several sets at a time, by a model that keeps what it has computed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ancestral.decoding.walk import Draw
from ancestral.errors import UnsupportedError
from ancestral.heads.base import Finite
from ancestral.heads.subset import SomeFinite, Subset, spread
from ancestral.networks.transformer import CausalTransformer, KeyValues, Layers
from ancestral.noise import Noise
from ancestral.order import Order
from ancestral.space import Condition

if TYPE_CHECKING:
    from ancestral.generator import Generator


class Track:
    """Distributions of the next sets of one item, given values that may still be taken back.

    Causal transformers keep keys and values, and forget those of values that are taken back; other networks are run
    over the whole item, which gives the same numbers.

    Args:
        generator: a built generator with one finite value per site.
        order: shared by all items.
        condition: what the model is told, for one item.
        options: temperature, top_k, top_p, min_p: the distributions are those that would be drawn from.

    Attributes:
        passes: network passes so far.
        symbols: int64 ``[V]``, the only ones that the head knows, ascending; None if it knows all.
    """

    def __init__(
        self,
        generator: Generator,
        order: Order,
        condition: Condition | None = None,
        options: dict[str, Any] | None = None,
    ):
        if order.batched:
            raise UnsupportedError("items that each follow an order of their own cannot be drawn speculatively")
        self.generator, self.order = generator, order
        self.condition = condition or Condition()
        self.draw = Draw(Noise(torch.zeros(1, dtype=torch.int64)), **(options or {}))
        self.passes = 0
        self.symbols = generator.head.symbols if isinstance(generator.head, Subset) else None
        network = generator.network
        # Nothing can be taken back of a compressed memory.
        plain = isinstance(network, CausalTransformer) and network.site_per_place
        self._cached = plain and network.keeping is None
        self._state: list[KeyValues] = []
        self._wide: list[KeyValues] = []  # of several candidates, until one of them is kept
        self._places = 0

    @torch.no_grad()
    def log_probs(self, values: Tensor, first: int, last: int) -> list[Tensor]:
        """Normalised log-probabilities of the sets ``first .. last - 1``: float64 ``[R, S, K]`` each.

        Arguments as for :meth:`known_log_probs`.
        """
        found = self.known_log_probs(values, first, last)
        if self.symbols is None:
            return found
        return [spread(each, self.symbols, self.generator.space.largest, float("-inf")) for each in found]

    @torch.no_grad()
    def known_log_probs(self, values: Tensor, first: int, last: int) -> list[Tensor]:
        """As :meth:`log_probs`, of the ``symbols`` that the head knows: ``[R, S, V]`` each; of all if it knows all.

        Args:
            values: int64 ``[R, N]``, R candidates for one item that agree up to the set ``first``; the sets before
                ``last - 1`` must be filled in.
            first: all sets before it are final.
            last: one past the last set.
        """
        network, order = self.generator.network, self.order
        rows = len(values)
        told = self.condition.map(lambda t: t.expand(rows, *t.shape[1:]))
        end = order.starts[last]
        if self._cached:
            assert isinstance(network, CausalTransformer)
            begin = min(self._places, order.starts[first])
            inputs = network.inputs(values, order, told, begin, end)
            state = self._state if rows == 1 else self._copies(rows, begin, end)
            features, state = network.mix(inputs, (begin, end), order.permutation[begin:end], order, state)
            if rows == 1:
                self._state, self._places = state, end
            else:
                self._wide = state
            features = features[:, order.starts[first] - begin :]
        else:
            features = network(values, order, told)[:, order.permutation[order.starts[first] : end]]
        self.passes += 1
        # All sets at once: a large vocabulary's weights are read once.
        found = self._at(features, order.permutation[order.starts[first] : end])
        return list(found.split(order.sizes[first:last], 1))

    def keep(self, sets: int, row: int = 0) -> None:
        """The values of the sets before ``sets - 1`` are final, as in the candidate ``row``; forget the rest."""
        end = self.order.starts[sets]
        if self._wide:
            end = min(end, self._wide[0].length)
            for kept, wide in zip(self._state, self._wide, strict=True):
                kept.k[:, :, self._places : end] = wide.k[row : row + 1, :, self._places : end]
                kept.v[:, :, self._places : end] = wide.v[row : row + 1, :, self._places : end]
            self._wide, self._places = [], max(self._places, end)
        self._places = min(self._places, end)
        for kept in self._state:
            kept.length = self._places

    def _at(self, features: Tensor, sites: Tensor) -> Tensor:
        found = self.generator.head(features, sites)
        if isinstance(found, SomeFinite):
            found = found.some
        if not isinstance(found, Finite):
            raise UnsupportedError("speculative decoding needs a head with one finite value per site")
        return torch.log_softmax(self.draw.adjust(found.log_probs()).double(), -1)

    def _copies(self, rows: int, begin: int, end: int) -> list[KeyValues]:
        """The kept keys and values once per candidate, with room up to ``end``."""
        if not self._state:  # nothing is kept yet: a first pass over the places before the candidates differ
            raise ValueError("follow one candidate up to the first open set before several")
        out = []
        for kept in self._state:
            wide = KeyValues(kept.k.expand(rows, -1, -1, -1), end)
            wide.k[:, :, :begin], wide.v[:, :, :begin] = kept.k[:, :, :begin], kept.v[:, :, :begin]
            wide.length = begin
            out.append(wide)
        return out


def early_exit(generator: Generator, layers: int) -> Generator:
    """The same generator with its first ``layers`` layers only; all weights are shared.

    Raises:
        UnsupportedError: the network is no causal transformer with more layers.
    """
    network = generator.network
    if not isinstance(network, CausalTransformer) or not 1 <= layers < len(network.blocks):
        raise UnsupportedError(f"leaving after {layers} layers needs a causal transformer with more layers than that")
    short, small = copy.copy(generator), copy.copy(network)
    small._modules = {**network._modules, "blocks": Layers(list(network.blocks)[:layers])}
    small.depth = layers
    short._modules = {**generator._modules, "network": small}
    return short
