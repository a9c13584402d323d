"""The laws that every recipe keeps, as functions: run by the tests and by ``ancestral check FILE``.

Each law takes an :class:`Exam`, a small trained model of a recipe with its toy data, and raises :class:`LawError` with
one sentence if it is broken, or :class:`NotApplicable` if it has nothing to say about this model.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ancestral.data import Dataset
from ancestral.decoding.complete import complete_values
from ancestral.decoding.decoders import Ancestral, Request
from ancestral.errors import DataError, StreamError
from ancestral.generator import Generator
from ancestral.heads.nested import Nested
from ancestral.model import Model
from ancestral.networks.base import take
from ancestral.noise import Noise, item_seeds
from ancestral.objectives import AbsorbingDiffusion, Likelihood, MaskedLikelihood
from ancestral.order import Order, cosine_sets
from ancestral.recipes.registry import Recipe, find
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


# -- 1. causality


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
    other = _others(generator, values)
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
    if isinstance(generator.head, Nested):
        inner = generator.head.generator
        nested = values.reshape(-1, inner.space.n, *inner.space.event)[:8]
        vector = torch.randn(len(nested), inner.space.vector, generator=torch.Generator().manual_seed(1))
        check_causality(inner, nested, inner.order.scoring(), Condition(vector=vector))


def _others(generator: Generator, values: Tensor) -> Tensor:
    """Values that differ from the given ones everywhere."""
    if not generator.space.discrete:
        return values + 1.0
    sizes = generator.space.site_sizes().reshape(-1, *[1] * len(generator.space.event))
    return (values + 1) % sizes


# -- 2. incremental = parallel


def incremental(exam: Exam) -> None:
    """Features found set by set are those of one pass over all sites."""
    values = exam.items[:4]
    for order in exam.orders(len(values)):
        for condition in exam.conditions(len(values)):
            check_incremental(exam.generator, values, order, condition)


@torch.no_grad()
def check_incremental(generator: Generator, values: Tensor, order: Order, condition: Condition | None = None) -> None:
    """:func:`incremental` of a generator for one order.

    Two passes over different items and one that begins in the middle run interleaved, so that a state which they
    share by mistake shows.
    """
    network, condition = generator.network, condition or Condition()
    full = network(values, order, condition)
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
                f"features of set {k} found step by step{f' from set {known}' if known else ''} differ by {off:.3g} "
                f"from those of one pass, under {order}",
            )


# -- 3. normalisation


def normalisation(exam: Exam) -> None:
    """The probabilities of all possible items sum to 1."""
    orders = [exam.generator.order.scoring()]
    if exam.generator.any_order and exam.generator.space.stop is None:
        orders.append(Order.random(exam.generator.space.n, seed=4))
    for order in orders:
        for condition in exam.conditions(len(exam.everything)):
            label = None if condition.label is None else torch.zeros(len(exam.everything), dtype=torch.int64)
            total = float(log_probs(exam.generator, exam.everything, order, Condition(label=label)).exp().sum())
            require(
                abs(total - 1) <= TOLERANCE,
                f"the probabilities of all items sum to {total:.8f}, not to 1, under {order}",
            )


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


# -- 4. sampling matches scoring


def sampling(exam: Exam, draws: int = 3000) -> None:
    """Items are drawn as often as their probability says (chi-square test)."""
    order = exam.generator.order.scoring()
    for condition in exam.conditions(draws):
        label = None if condition.label is None else torch.zeros(draws, dtype=torch.int64)
        values = Ancestral()(exam.generator, Request(Noise.of(7, draws), Condition(label=label), order))
        told = Condition(label=None if label is None else label.new_zeros(len(exam.everything)))
        log_prob = log_probs(exam.generator, exam.everything, order, told)
        p = chi_square(values, exam.everything, log_prob.exp())
        require(p > SMALLEST_P, f"samples do not follow the scores: chi-square test p = {p:.2g} on {draws} draws")


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


# -- 5. coding


def coding(exam: Exam) -> None:
    """Items come back from their code to the bit, and the code is as long as their probability says."""
    if not exam.generator.head.finite:
        raise NotApplicable("the values are real numbers, which have no lossless code")
    from ancestral.coding import decode_values, encode_values, unpack

    generator, values = exam.generator, exam.items
    blob = encode_values(generator, values, batch_size=100)
    back, _ = decode_values(generator, blob)
    require(torch.equal(back, values), "decompressed values differ from those compressed")
    ideal = -float(log_probs(generator, values).sum()) / math.log(2)
    bits = unpack(blob).code_bits
    require(
        abs(bits - ideal) <= 0.01 * ideal + 64,
        f"the code has {bits} bits where -log2 p is {ideal:.1f}, more than 1 % + 64 off",
    )
    header = 8 * len(blob) - bits
    require(header <= 8 * 64, f"the header takes {header} bits, more than 64 bytes")
    for place in (len(blob) // 2, len(blob) - 6):
        damaged = bytearray(blob)
        damaged[place] ^= 4
        _refused(lambda damaged=bytes(damaged): decode_values(generator, damaged), "a damaged stream")  # type: ignore[misc]
    weight = next(generator.parameters())
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.add_(0.01)
        try:
            _refused(lambda: decode_values(generator, blob), "the stream of another model")
        finally:
            weight.copy_(kept)


def _refused(decode: Callable[[], Any], what: str) -> None:
    try:
        decode()
    except StreamError:
        return
    raise LawError(f"{what} is decoded instead of refused")


# -- 6. completion


def completion(exam: Exam, draws: int = 2000) -> None:
    """Known sites never change, and the others follow Bayes' rule under the order in which they are drawn."""
    generator, n = exam.generator, exam.generator.space.n
    order = generator.order.scoring()
    prefix = order.rank < max(1, order.n_sets // 2)
    masks = [prefix] if order.n_sets > 1 else []
    if generator.any_order:
        masks.append(torch.arange(n) == n - 1)
    if not masks:
        raise NotApplicable("all sites are drawn at once")
    item = exam.items[3]
    for known in masks:
        done = _complete(exam, item, known, draws)
        if done.method not in ("exact", "prefix"):
            raise LawError(f"sites that the model can be conditioned on are completed by {done.method}")
        follow = order if bool((known == prefix).all()) else order.given(known)
        try:
            cells = enumerate_values(generator.space, follow)
        except DataError:
            continue  # too many to count; that known sites stay has been seen
        fits = (cells == item)[:, known].flatten(1).all(1)
        log_prob = log_probs(generator, cells[fits], follow)
        p = chi_square(done.values, cells[fits], torch.softmax(log_prob, 0))
        require(p > SMALLEST_P, f"completions do not follow Bayes' rule: chi-square test p = {p:.2g} on {draws} draws")
    last = torch.zeros(n, dtype=torch.bool)
    last[int(order.permutation.reshape(-1)[-1])] = True
    _complete(exam, item, last, 16)


def _complete(exam: Exam, item: Tensor, known: Tensor, draws: int) -> Any:
    values, shown = item.expand(draws, *item.shape), known.expand(draws, -1)
    # What stands at unknown sites must not matter.
    hidden = (~shown).reshape(*shown.shape, *[1] * (values.dim() - 2))
    done = complete_values(
        exam.generator,
        torch.where(hidden, _others(exam.generator, values), values),
        shown,
        seeds=item_seeds(8, torch.arange(draws)),
        condition=Condition(),
        order=None,
        decoder=Ancestral(),
        guidance=0.0,
        options={},
    )
    results = [("completion", done.values)]
    if done.method != "importance":
        request = Request(Noise.of(9, 8), given=values[:8].clone(), known=shown[:8])
        results.append(("the recipe's decoder", exam.model.decoder(exam.generator, request)))
    for name, found in results:
        kept = (found == values[: len(found)]) | hidden[: len(found)]
        require(kept.all(), f"{name} changes a known site")
    return done


# -- 7. save and load


def saving(exam: Exam) -> None:
    """A loaded model gives the same scores and the same samples."""
    model = exam.model
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model")
        outside = exam.recipe.path if exam.recipe.modality == "outside" else None
        loaded = Model.load(Path(folder) / "model", outside)
    same = np.array_equal(model.log_prob(exam.dataset), loaded.log_prob(exam.dataset))
    require(same, "a loaded model gives other scores")
    require(torch.equal(_drawn(model, 16), _drawn(loaded, 16)), "a loaded model gives other samples for the same seed")


def _drawn(model: Model, n: int, first: int = 0, **options: Any) -> Tensor:
    return model.tokenizer.encode(model.sample(n, seed=3, first=first, as_dataset=True, **options))


# -- 8. resume


class _Killed(Exception):
    pass


def resume(exam: Exam, steps: int = 5) -> None:
    """Training that is killed and goes on ends with the weights of training that was not, to the bit."""
    part = exam.dataset.take(slice(0, 40))  # three steps an epoch: both halves cross an end of the data

    def kill(row: Any, training: Any) -> None:
        if training.step == steps:
            raise _Killed

    settings = {"steps": 2 * steps, "batch_size": 16, "log_every": steps, "ema": 0.9}
    straight = exam.fit(part, **settings)
    with tempfile.TemporaryDirectory() as folder:
        kept = {"checkpoint": str(Path(folder) / "run"), "save_every": steps}
        try:
            exam.fit(part, callbacks=[kill], **settings, **kept)
            raise LawError("training was not stopped by its callback, so that nothing was resumed")
        except _Killed:
            pass
        resumed = exam.fit(part, **settings, **kept)
    for name, weight in straight.generator.state_dict().items():
        require(torch.equal(weight, resumed.generator.state_dict()[name]), f"weight {name} differs after a resumed run")


# -- 9. batch invariance


def batches(exam: Exam) -> None:
    """Neither an item's score nor its sample depends on the items it is computed with."""
    model, few = exam.model, exam.dataset.take(slice(0, 12))
    together = np.asarray(model.log_prob(few))
    alone = np.concatenate([np.asarray(model.log_prob(few.take([i]))) for i in range(12)])
    off = float(np.abs(together - alone).max())
    require(off <= TOLERANCE, f"the score of an item differs by {off:.3g} nats in another batch")
    for decoder in (None, Ancestral()):
        whole = _drawn(model, 8, decoder=decoder)
        single = torch.cat([_drawn(model, 1, first=i, decoder=decoder) for i in range(8)])
        name = type(decoder or model.decoder).__name__
        require(torch.equal(whole, single), f"an item drawn by {name} differs when it is drawn alone")
        pairs = _drawn(model, 8, decoder=decoder, batch_size=3)
        require(torch.equal(whole, pairs), f"an item drawn by {name} differs in batches of another size")


# -- 10. bounds


def bounds(exam: Exam, draws: int = 64, groups: int = 24) -> None:
    """Means over random orders are lower bounds on the mixture over all orders, and estimate what they say."""
    generator, n = exam.generator, exam.generator.space.n
    if not generator.any_order:
        raise NotApplicable("the model has one order, and its scores are exact")
    if generator.space.stop is not None or n > 4:
        raise NotApplicable("there are too many orders to go through")
    chosen = exam.dataset.take(slice(0, 6))
    values = exam.model.tokenizer.encode(chosen)
    orders = [Order(torch.argsort(torch.tensor(p))) for p in itertools.permutations(range(n))]
    table = torch.stack([log_probs(generator, values, order) for order in orders])  # [orders, items]
    mean, spread = table.mean(0), table.std(0)
    mixture = table.logsumexp(0) - math.log(len(orders))
    found = exam.model.log_prob(chosen, bound=draws)
    require(found.kind == "lower_bound", f"a mean over orders calls itself {found.kind}")
    drawn = torch.from_numpy(np.asarray(found))
    error = 5 * spread / math.sqrt(draws) + TOLERANCE
    off = (drawn - mean).abs()
    require(
        (off <= error).all(), f"log_prob(bound={draws}) is {float(off.max()):.3g} nats from the mean over all orders"
    )
    require((drawn <= mixture + error).all(), "log_prob(bound=) exceeds the exact log-probability of the mixture")
    objective = generator.objective
    if isinstance(objective, MaskedLikelihood) and (objective.ratio, objective.weighting) != ("uniform", "bound"):
        return  # its loss is not meant as a bound
    if not isinstance(objective, (Likelihood, MaskedLikelihood, AbsorbingDiffusion)):
        return
    with torch.no_grad():
        for item in range(2):
            same = values[item].expand(256, *values.shape[1:])
            losses = [
                float(objective.loss(generator, same, Condition(), Noise.of(11, 256, 256 * g), 1.0))
                for g in range(groups)
            ]
            each = -torch.tensor(losses, dtype=torch.float64) * generator.space.scalars
            within = 5 * float(each.std()) / math.sqrt(groups) + TOLERANCE
            # Times below `smallest` are left out and the others weighed as if there were none.
            if isinstance(objective, AbsorbingDiffusion):
                within += objective.smallest * math.pi * float(-mean[item])
            gap = float(each.mean()) - float(mean[item])
            require(
                abs(gap) <= within,
                f"the training loss is {gap:.3g} nats from the bound it estimates (error {within:.2g})",
            )
            require(
                float(each.mean()) <= float(mixture[item]) + within,
                "the training loss claims more than the exact probability",
            )


LAWS: dict[str, Callable[[Exam], None]] = {
    "causality": causality,
    "incremental": incremental,
    "normalisation": normalisation,
    "sampling": sampling,
    "coding": coding,
    "completion": completion,
    "saving": saving,
    "resume": resume,
    "batches": batches,
    "bounds": bounds,
}
"""The laws by name; ``xfail=`` of a recipe takes these names."""


@dataclass(frozen=True)
class LawResult:
    """What became of one law.

    Attributes:
        name: of the law.
        status: "ok"; "failed"; "xfail", failed as the recipe declares; or "not applicable".
        detail: why, empty for "ok".
        seconds: time taken.
    """

    name: str
    status: Literal["ok", "failed", "xfail", "not applicable"]
    detail: str
    seconds: float


def examine(exam: Exam, name: str) -> LawResult:
    """Run one law; errors of any kind count as failures."""
    began = time.perf_counter()
    declared = exam.recipe.xfail.get(name)
    status: Literal["ok", "failed", "xfail", "not applicable"] = "ok"
    detail = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            LAWS[name](exam)
    except NotApplicable as reason:
        status, detail = "not applicable", str(reason)
    except Exception as error:
        status = "failed" if declared is None else "xfail"
        detail = str(error) if isinstance(error, LawError) else f"{type(error).__name__}: {error}"
    if status == "ok" and declared is not None:
        status, detail = "failed", f"the recipe declares that this law fails ({declared}), and it holds; drop the xfail"
    return LawResult(name, status, detail, time.perf_counter() - began)


def check(recipe: Recipe | str | Path, laws: tuple[str, ...] = tuple(LAWS)) -> list[LawResult]:
    """Run the laws over a recipe: its record, its id, or a Python file that defines it.

    Raises:
        DataError: no such recipe, or no such law.
    """
    record = recipe if isinstance(recipe, Recipe) else find(recipe)
    for name in [*laws, *record.xfail]:
        if name not in LAWS:
            raise DataError(f"there is no law {name!r}; the laws are {', '.join(LAWS)}")
    exam = Exam(record)
    return [examine(exam, name) for name in laws]
