"""What a law is given, a small trained model of a recipe with toy data, and what laws share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ancestral.data import Dataset
from ancestral.decoding.decoders import Request
from ancestral.errors import DataError
from ancestral.generator import Generator
from ancestral.model import Model
from ancestral.noise import Noise
from ancestral.order import Order, cosine_sets
from ancestral.recipes.registry import Recipe
from ancestral.recipes.toys import enumerate_values, toy
from ancestral.space import Condition

TOLERANCE = 1e-5
SMALLEST_P = 1e-3


class LawError(AssertionError):
    """A law is broken; the message says which and by how much."""


class NotApplicable(Exception):
    """A law has nothing to say about this model; the message says why."""


def require(holds: bool | Tensor, sentence: str) -> None:
    """Raise :class:`LawError` with ``sentence`` unless the law holds."""
    if not bool(holds):
        raise LawError(sentence)


class Exam:
    """A recipe at its tiny size, trained for a few steps so that no weight is where it started.

    Args:
        recipe: the record.
        steps: of training.
    """

    def __init__(self, recipe: Recipe, steps: int = 30):
        self.recipe, self.steps = recipe, steps
        self.dataset: Dataset = toy(recipe.toy)

    @cached_property
    def model(self) -> Model:
        """The trained model."""
        return self.fit(steps=self.steps)

    def fit(self, dataset: Dataset | None = None, **options: Any) -> Model:
        """A new model of the recipe, trained as told."""
        settings = {"batch_size": 32, "validation": 0, "quiet": True, "lr": 1e-2, "ema": None, **options}
        return self.recipe(**self.recipe.tiny).fit(self.dataset if dataset is None else dataset, **settings)

    @property
    def generator(self) -> Generator:
        """The model's distribution."""
        return self.model.generator

    @cached_property
    def items(self) -> Tensor:
        """Values of the toy data, ``[n, N, *event]``; windows of a model of streams."""
        tokenizer = self.model.tokenizer
        return tokenizer.windows(self.dataset)[:256] if tokenizer.streaming else tokenizer.encode(self.dataset)

    @cached_property
    def everything(self) -> Tensor:
        """Every values tensor under the scoring order."""
        try:
            return enumerate_values(self.generator.space, self.generator.order.scoring())
        except DataError as error:
            raise NotApplicable(str(error)) from error

    def orders(self, batch: int) -> Iterator[Order]:
        """Orders that the model scores, trains and decodes with, one row per item where they are drawn."""
        generator = self.generator
        n, policy = generator.space.n, generator.order
        noise = Noise.of(5, batch)
        found = [policy.scoring(), *(policy.draw(noise.uniform(n + 1), progress) for progress in (0.0, 1.0))]
        if generator.any_order:
            drawn = torch.argsort(torch.argsort(noise.uniform(n), -1), -1)
            known = drawn < max(1, n // 2)
            found += [Order(drawn), policy.scoring().one_by_one().given(known), Order(cosine_sets(n, 3)[drawn])]
        found += self._decoding(batch)
        for order in found:
            try:
                generator.network.check(order)
            except ValueError:
                continue
            yield order

    def _decoding(self, batch: int) -> list[Order]:
        """The orders that the recipe's own decoder follows."""
        network, seen = self.generator.network, []
        start = network.start

        def spy(size: int, order: Order, *rest: Any, **named: Any) -> Any:
            seen.append(order)
            return start(size, order, *rest, **named)

        network.start = spy  # type: ignore[method-assign, assignment]
        try:
            self.model.decoder(self.generator, Request(Noise.of(6, batch)))
        finally:
            del network.start
        return seen

    def conditions(self, batch: int) -> Iterator[Condition]:
        """No label, and each item a label, where there are labels."""
        yield Condition()
        if self.generator.space.classes:
            yield Condition(label=torch.arange(batch) % self.generator.space.classes)


def others(generator: Generator, values: Tensor) -> Tensor:
    """Values that differ from the given ones everywhere."""
    if not generator.space.discrete:
        return values + 1.0
    sizes = generator.space.site_sizes().reshape(-1, *[1] * len(generator.space.event))
    return (values + 1) % sizes


@torch.no_grad()
def log_probs(
    generator: Generator, values: Tensor, order: Order | None = None, condition: Condition | None = None
) -> Tensor:
    """Log-probability of each item, float64 ``[n]``, with a shared order."""
    parts = []
    for index in torch.arange(len(values)).split(4096):
        told = (condition or Condition()).map(lambda t, index=index: t[index])
        parts.append(generator.log_prob(values[index], order, told).double().sum(1))
    return torch.cat(parts)


def chi_square(drawn: Tensor, cells: Tensor, probability: Tensor, least: float = 5.0) -> float:
    """P-value of Pearson's chi-square test that ``drawn`` ``[n, ...]`` follows ``probability`` ``[M]`` over ``cells``.

    Cells of a small expected count are joined, in a random but fixed sequence, until ``least`` are expected.
    """
    base = int(max(cells.max(), drawn.max())) + 1
    power = torch.tensor([base**i for i in range(cells[0].numel())], dtype=torch.float64)
    codes = cells.flatten(1).double() @ power
    ordered, place = codes.sort()
    found = drawn.flatten(1).double() @ power
    index = torch.searchsorted(ordered, found).clamp(max=len(ordered) - 1)
    if not bool((ordered[index] == found).all()):
        return 0.0  # drawn, though it is no possible item
    counts = torch.zeros(len(cells), dtype=torch.float64)
    counts.index_add_(0, place[index], torch.ones(len(drawn), dtype=torch.float64))
    expected = probability.double() * len(drawn)
    pooled: list[list[float]] = []
    rest = [0.0, 0.0]
    for cell in torch.randperm(len(cells), generator=torch.Generator().manual_seed(0)).tolist():
        if float(expected[cell]) >= least:
            pooled.append([float(counts[cell]), float(expected[cell])])
            continue
        rest[0], rest[1] = rest[0] + float(counts[cell]), rest[1] + float(expected[cell])
        if rest[1] >= least:
            pooled.append(rest)
            rest = [0.0, 0.0]
    if rest[1] > 0 and pooled:
        pooled[-1][0] += rest[0]
        pooled[-1][1] += rest[1]
    if len(pooled) < 2:
        raise NotApplicable("one item has nearly all the probability; nothing can be counted")
    statistic = sum((seen - e) ** 2 / e for seen, e in pooled)
    half = torch.tensor([(len(pooled) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))
