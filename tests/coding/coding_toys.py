"""Small generators and data for the tests of the coding room."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ancestral.generator import Generator
from ancestral.heads.categorical import Categorical, LogisticMixture
from ancestral.heads.nested import Nested
from ancestral.networks import CausalTransformer, MaskedTransformer, QueryTransformer
from ancestral.networks.base import Network
from ancestral.noise import Noise
from ancestral.order import FixedOrder, Order
from ancestral.space import Condition, Space

NETWORKS = {"causal": CausalTransformer, "query": QueryTransformer, "masked": MaskedTransformer}


def network(kind: str = "causal") -> Network:
    return NETWORKS[kind](width=16, depth=1, heads=2)


def build(
    space: Space, order: Order | str = "raster", kind: str = "causal", head: object = None, seed: int = 0
) -> Generator:
    """An untrained generator whose probabilities are far from uniform."""
    torch.manual_seed(seed)
    chosen = head or Categorical()
    generator = Generator(network(kind), chosen, FixedOrder(order)).build(space)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.startswith("head.") and name.endswith("weight"):
                parameter.mul_(3.0)
    return generator.eval()


def build_nested(order: Order | str, kind: str, inner_kind: str = "causal") -> Generator:
    """Colours: three channels per site, one after the other."""
    inner = Generator(network(inner_kind), Categorical(), FixedOrder("raster"))
    return build(Space((2, 3), 5, event=(3,)), order, kind, Nested(inner))


def sample(generator: Generator, count: int, seed: int = 0, condition: Condition | None = None) -> Tensor:
    with torch.no_grad():
        return generator.sample(Noise.of(seed, count), condition)


def ideal_bits(generator: Generator, values: Tensor, order: Order | None = None, condition: Condition | None = None):
    with torch.no_grad():
        return -generator.log_prob(values, order, condition).double().sum().item() / math.log(2)


__all__ = ["LogisticMixture", "NETWORKS", "build", "build_nested", "ideal_bits", "network", "sample"]
