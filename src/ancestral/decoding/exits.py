"""Early exit: a site whose value is plain after a few layers is drawn from there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ancestral.decoding.decoders import Request
from ancestral.decoding.speculative import final_symbols, prepare
from ancestral.decoding.walk import Draw
from ancestral.errors import UnsupportedError
from ancestral.heads.base import Finite
from ancestral.networks.transformer import CausalTransformer
from ancestral.noise import Noise

if TYPE_CHECKING:
    from ancestral.generator import Generator


@dataclass
class ExitReport:
    """How deep the network was run: ``layers`` in all for ``sites`` sites."""

    sites: int = 0
    layers: int = 0

    @property
    def layers_per_site(self) -> float:
        """Mean depth."""
        return self.layers / self.sites if self.sites else 0.0


@dataclass(frozen=True)
class ConfidentExit:
    """Leaves the network after the first of some layers where it is sure (CALM: Schuster et al. 2022).

    Sure means that the largest probability there exceeds the second by the threshold. The layers that are left out get
    their keys and values from the state that was left with, so that later sites can look back at any depth. The samples
    follow neither the whole network nor its first layers; a threshold above 1 gives those of the whole.

    Reference:
        Schuster et al. Confident adaptive language modeling. 2022, arXiv:2207.07061.

    Args:
        layers: numbers of layers after which the network may be left; they should have been trained to
            (:class:`ancestral.objectives.EarlyExit`).
        threshold: least difference of the two largest probabilities.
        report: counts; added to by every call.
    """

    layers: tuple[int, ...] = (1,)
    threshold: float = 0.9
    report: ExitReport = field(default_factory=ExitReport, compare=False)

    @torch.no_grad()
    def __call__(self, generator: Generator, request: Request) -> Tensor:
        values, order, known = prepare(generator, request)
        network = generator.network
        if not isinstance(network, CausalTransformer) or not order.sequential or request.around is not None:
            raise UnsupportedError("leaving early needs a causal transformer that draws single sites on its own")
        end = order.n_sets if request.sets is None else min(order.n_sets, known + request.sets)
        ends, stop = final_symbols(generator, order, request), generator.space.stop
        for i in range(len(values)):
            row, told = values[i : i + 1], request.condition.map(lambda t, i=i: t[i : i + 1])
            counter = request.noise.counter
            noise = Noise(request.noise.seeds[i : i + 1], counter if isinstance(counter, int) else counter[i : i + 1])
            draw = Draw(noise, **request.options)
            over = stop in ends and bool((row[:, order.permutation[:known]] == stop).any())
            state: list = []
            k = known
            while k < end and not over:
                begin = 0 if k == known else k
                inputs = network.inputs(row, order, told, begin, k + 1)
                if begin == 0:  # all of what is known at once, to the full depth
                    features, state = network.mix(inputs, (0, k + 1), order.permutation[: k + 1], order, state)
                    leaf = generator.head(features[:, -1:], order.sets[k])
                    depth = network.depth
                else:
                    leaf, depth = self._leave(generator, inputs, order.sets[k], state)
                assert isinstance(leaf, Finite)
                row[:, order.sets[k]] = draw(leaf, None, None)
                over = int(row[0, order.sets[k]]) in ends
                self.report.sites += 1
                self.report.layers += depth
                k += 1
            if stop is not None and stop in ends and over:
                row[:, order.permutation[k:]] = stop
        request.noise.counter = request.noise.counter + (end - known)
        return values

    def _leave(self, generator: Generator, x: Tensor, sites: Tensor, state: list) -> tuple[Finite, int]:
        """The distribution where the network is left, and after how many layers."""
        network = generator.network
        assert isinstance(network, CausalTransformer)
        rotation = network._rotation(sites)
        left: Finite | None = None
        depth = network.depth
        for number, block in enumerate(network.blocks, 1):
            q, k, v = block.project(x, rotation)
            k, v = state[number - 1].append(k, v)
            if left is not None:
                continue
            x = block.finish(x, block.attend(q, k, v))
            if number in self.layers and number < network.depth:
                leaf = generator.head(network.norm(x), sites)
                assert isinstance(leaf, Finite)
                best = leaf.log_probs()[0, 0].topk(min(2, leaf.logits.shape[-1])).values.exp()
                if float(best[0] - (best[1] if len(best) > 1 else 0.0)) >= self.threshold:
                    left, depth = leaf, number
        if left is not None:
            return left, depth
        whole = generator.head(network.norm(x), sites)
        assert isinstance(whole, Finite)
        return whole, depth
